package client

import (
	"strings"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

// Text makes a text message. Bytes that are not UTF-8 become U+FFFD.
func Text(text string) *proto.Content {
	body, err := gproto.Marshal(&proto.TextContent{Text: text})
	if err != nil { // not UTF-8
		body, _ = gproto.Marshal(&proto.TextContent{Text: strings.ToValidUTF8(text, "\uFFFD")})
	}
	return &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_TEXT, Body: body}
}

// TextOf returns the text of a text message; ok is false for other kinds and
// for what does not decode (other people's clients wrote it).
func TextOf(content *proto.Content) (text string, ok bool) {
	var t proto.TextContent
	if content.GetKind() != proto.ContentKind_CONTENT_KIND_TEXT || gproto.Unmarshal(content.GetBody(), &t) != nil {
		return "", false
	}
	return t.GetText(), true
}
