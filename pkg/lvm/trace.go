package lvm

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// A span says of a command what was run, where, and what came of it. Not its arguments: names are the caller's.

// traceCommand begins the span of a command; end ends it. Without a tracer both do nothing.
func traceCommand(ctx context.Context, tracer trace.Tracer, group, verb string) (_ context.Context, end func(exitCode int, err error)) {
	if tracer == nil {
		return ctx, func(int, error) {}
	}
	ctx, span := tracer.Start(ctx, "lvm "+verb, trace.WithAttributes(
		attribute.String("lvm.verb", verb), attribute.String("lvm.volume_group", group),
	))
	return ctx, func(exitCode int, err error) {
		result := "ok"
		if err != nil {
			result = "error"
			span.SetStatus(codes.Error, "")
		}
		span.SetAttributes(attribute.String("lvm.result", result), attribute.Int("lvm.exit_code", exitCode))
		span.End()
	}
}

// traceWait begins the span of the wait for a group's turn.
func traceWait(ctx context.Context, tracer trace.Tracer, group string) (end func(err error)) {
	if tracer == nil {
		return func(error) {}
	}
	_, span := tracer.Start(ctx, "lvm wait", trace.WithAttributes(attribute.String("lvm.volume_group", group)))
	return func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
