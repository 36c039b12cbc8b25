package proto

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// compileSources compiles every .proto file of the folder, comments included.
func compileSources(t *testing.T) (names []string, files []*descriptorpb.FileDescriptorProto) {
	t.Helper()
	paths, err := filepath.Glob("hermod/v1/*.proto")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no .proto files: %v", err)
	}
	for _, p := range paths {
		names = append(names, filepath.ToSlash(p))
	}
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{"."}},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		t.Fatal(err)
	}
	// Dependencies first, as protogen wants them.
	done := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if done[name] {
			return
		}
		done[name] = true
		f := compiled.FindFileByPath(name)
		if f == nil {
			t.Fatalf("%s is imported and not in hermod/v1", name)
		}
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).Path())
		}
		files = append(files, protodesc.ToFileDescriptorProto(f))
	}
	for _, name := range names {
		add(name)
	}
	return names, files
}

// The generated code is what `make proto` makes of the sources, byte for byte.
func TestGeneratedCodeIsFresh(t *testing.T) {
	names, files := compileSources(t)
	plugin, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      gproto.String("module=github.com/hermod-im/hermod/proto"),
		ProtoFile:      files,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range plugin.Files {
		if f.Generate {
			internal_gengo.GenerateFile(plugin, f)
		}
	}
	resp := plugin.Response()
	if resp.Error != nil {
		t.Fatal(*resp.Error)
	}
	want := map[string]bool{}
	for _, out := range resp.File {
		want[out.GetName()] = true
		have, err := os.ReadFile(out.GetName())
		if err != nil {
			t.Errorf("%v: run make proto", err)
			continue
		}
		if string(have) != out.GetContent() {
			t.Errorf("%s is stale (%s): run make proto", out.GetName(), firstDifference(string(have), out.GetContent()))
		}
	}
	have, err := filepath.Glob("*.pb.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range have {
		if !want[name] {
			t.Errorf("%s comes from no .proto file: delete it", name)
		}
	}
}

func firstDifference(have, want string) string {
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range min(len(h), len(w)) {
		if h[i] != w[i] {
			return "has «" + h[i] + "», wants «" + w[i] + "»"
		}
	}
	return "one is longer"
}

// Every file says how it is called in Go, Java, Swift and Objective-C.
func TestLanguageOptions(t *testing.T) {
	_, files := compileSources(t)
	outer := map[string]string{}
	for _, f := range files {
		o := f.GetOptions()
		for option, got := range map[string][2]string{
			"go_package":        {o.GetGoPackage(), "github.com/hermod-im/hermod/proto;proto"},
			"java_package":      {o.GetJavaPackage(), "im.hermod.proto.v1"},
			"objc_class_prefix": {o.GetObjcClassPrefix(), "HMD"},
			"swift_prefix":      {o.GetSwiftPrefix(), "Hermod"},
			"package":           {f.GetPackage(), "hermod.v1"},
			"syntax":            {f.GetSyntax(), "proto3"},
		} {
			if got[0] != got[1] {
				t.Errorf("%s: option %s is %q, want %q", f.GetName(), option, got[0], got[1])
			}
		}
		if !o.GetJavaMultipleFiles() {
			t.Errorf("%s: java_multiple_files is not set", f.GetName())
		}
		if !strings.HasSuffix(o.GetJavaOuterClassname(), "Proto") {
			t.Errorf("%s: java_outer_classname is %q, want one that ends in Proto", f.GetName(), o.GetJavaOuterClassname())
		}
		if other, taken := outer[o.GetJavaOuterClassname()]; taken {
			t.Errorf("%s: java_outer_classname is that of %s", f.GetName(), other)
		}
		outer[o.GetJavaOuterClassname()] = f.GetName()
	}
}
