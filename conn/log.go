package conn

import (
	"sync/atomic"

	"github.com/rs/zerolog"
)

// gnetLog brings gnet's messages into our log. gnet keeps the logger of the
// engine started last in a package variable, for ever; so it can be switched off.
type gnetLog struct {
	log zerolog.Logger
	off atomic.Bool
}

func (g *gnetLog) write(e *zerolog.Event, format string, args []any) {
	if g.off.Load() {
		e.Discard()
		return
	}
	e.Msgf("gnet: "+format, args...)
}

func (g *gnetLog) Debugf(format string, args ...any) { g.write(g.log.Debug(), format, args) }
func (g *gnetLog) Infof(format string, args ...any)  { g.write(g.log.Debug(), format, args) }
func (g *gnetLog) Warnf(format string, args ...any)  { g.write(g.log.Warn(), format, args) }
func (g *gnetLog) Errorf(format string, args ...any) { g.write(g.log.Error(), format, args) }

// Fatalf does not exit: a library may not take the process down.
func (g *gnetLog) Fatalf(format string, args ...any) { g.write(g.log.Error(), format, args) }
