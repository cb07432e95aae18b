package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"k8s.io/klog/v2"
)

// logFormat is a flag value, as every component of Kubernetes has it.
type logFormat string

const (
	formatText logFormat = "text"
	formatJSON logFormat = "json"
)

func (f *logFormat) String() string { return string(*f) }

// Set implements pflag.Value.
func (f *logFormat) Set(s string) error {
	switch logFormat(s) {
	case formatText, formatJSON:
		*f = logFormat(s)
		return nil
	default:
		return fmt.Errorf("%q is neither text nor json", s)
	}
}

// Type implements pflag.Value.
func (f *logFormat) Type() string { return "format" }

// logJSON has klog write one JSON object a line, with the keys that Kubernetes' own components have: ts, caller, msg, v
// (not in errors), err, and what the line is about. Why not by k8s.io/component-base: docs/adr/0023
func logJSON(out io.Writer) { klog.SetSlogLogger(slog.New(jsonHandler(out))) }

func jsonHandler(out io.Writer) slog.Handler {
	return leveled{slog.NewJSONHandler(out, &slog.HandlerOptions{AddSource: true, Level: slog.Level(-127), ReplaceAttr: kubernetesKeys})}
}

// leveled leaves it to klog (-v) what is logged.
type leveled struct{ slog.Handler }

func (h leveled) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || klog.V(klog.Level(-level)).Enabled() //nolint:gosec // logr's verbosities, negated
}

func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveled{h.Handler.WithAttrs(attrs)}
}

func (h leveled) WithGroup(name string) slog.Handler { return leveled{h.Handler.WithGroup(name)} }

func kubernetesKeys(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 {
		switch a.Key {
		case slog.TimeKey:
			return slog.Float64("ts", float64(a.Value.Time().UnixMicro())/1000)
		case slog.LevelKey:
			if level, ok := a.Value.Any().(slog.Level); ok && level <= slog.LevelInfo {
				return slog.Int("v", int(-level))
			}
			return slog.Attr{} // an error
		case slog.SourceKey:
			if source, ok := a.Value.Any().(*slog.Source); ok {
				dir, file := filepath.Split(source.File)
				return slog.String("caller", fmt.Sprintf("%s:%d", filepath.Join(filepath.Base(dir), file), source.Line))
			}
		}
	}
	// As in text: "1.5s" and not nanoseconds, and what a message without its secrets says of itself.
	switch value := a.Value.Any().(type) {
	case time.Duration:
		return slog.String(a.Key, value.String())
	case error:
		return slog.String(a.Key, value.Error())
	case fmt.Stringer:
		return slog.String(a.Key, value.String())
	}
	return a
}
