package driver

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// codeOf is the one table from the engine's errors to gRPC codes. The snapshotter treats Canceled,
// DeadlineExceeded, Unavailable, ResourceExhausted and Aborted as "may still be in progress" and every other
// code as final, nothing left behind.
var codeOf = []struct {
	err  error
	code codes.Code
}{
	{storage.ErrPending, codes.Aborted},
	{storage.ErrInvalid, codes.InvalidArgument},
	{storage.ErrSizeRange, codes.OutOfRange},
	{storage.ErrNotFound, codes.NotFound},
	{storage.ErrConflict, codes.AlreadyExists},
	{storage.ErrNoSpace, codes.ResourceExhausted},
	{storage.ErrInUse, codes.FailedPrecondition},
	{storage.ErrDamaged, codes.FailedPrecondition},
	{storage.ErrBusy, codes.Unavailable},
	{storage.ErrOtherNode, codes.Unavailable},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

// toStatus turns an error of any layer below into the gRPC status that a handler returns. The message is
// never empty and the details always are, as the CSI spec asks ("Error Scheme").
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, row := range codeOf {
		if errors.Is(err, row.err) {
			return status.Error(row.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}
