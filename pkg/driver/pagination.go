package driver

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// listKind tells the lists apart in tokens, so that a token is only good for the list that gave it out.
type listKind string

const (
	listVolumes   listKind = "volumes"
	listSnapshots listKind = "snapshots"
	listHealth    listKind = "health"
)

// pageRequest is what all List requests have in common.
type pageRequest interface {
	GetMaxEntries() int32
	GetStartingToken() string
}

// parsePage judges a List request before anything is looked up, and says after which id its page begins.
func parsePage(kind listKind, req pageRequest) (after string, err error) {
	if req.GetMaxEntries() < 0 {
		return "", fmt.Errorf("%w: max_entries %d is negative", storage.ErrInvalid, req.GetMaxEntries())
	}
	return parseToken(kind, req.GetStartingToken())
}

// page cuts one page out of a list that is ordered by id, as the engine's are. A token is made from the last id that was
// returned and not from a count: a page boundary so survives that objects are made or deleted meanwhile, even
// the one at the boundary. Whatever existed all the time is listed exactly once.
func page[T any](items []T, id func(T) string, kind listKind, after string, limit int32) (entries []T, next string) {
	first, found := slices.BinarySearchFunc(items, after, func(item T, after string) int { return cmp.Compare(id(item), after) })
	if found {
		first++
	}
	items = items[first:]
	if limit > 0 && len(items) > int(limit) {
		items = items[:limit]
		next = formatToken(kind, id(items[limit-1]))
	}
	return items, next
}

// formatToken makes a token of under 128 bytes, which is opaque to the CO.
func formatToken(kind listKind, lastID string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(kind) + ":" + lastID))
}

// parseToken returns the last id that was listed; an empty token starts from the beginning. Any other token
// that formatToken cannot have made is Aborted: "start again with an empty starting_token" (CSI spec,
// ListVolumes errors).
func parseToken(kind listKind, token string) (lastID string, err error) {
	if token == "" {
		return "", nil
	}
	bad := status.Errorf(codes.Aborted, "starting_token is not one that this driver has given out for this list; start again without it")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return "", bad
	}
	prefix, lastID, _ := strings.Cut(string(raw), ":")
	handle, err := storage.ParseHandle(lastID)
	if err != nil || prefix != string(kind) || handle.IsSnapshot() != (kind == listSnapshots) {
		return "", bad
	}
	// The decoder skips line breaks; what we give out has none.
	if formatToken(kind, lastID) != token {
		return "", bad
	}
	return lastID, nil
}
