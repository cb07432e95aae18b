package driver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func self(s string) string { return s }

func handles(n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, volumeHandle(testNode, fmt.Sprint(i)))
	}
	slices.Sort(ids)
	return ids
}

func TestPageSizes(t *testing.T) {
	ids := handles(5)
	for limit, want := range map[int32][]int{0: {5}, 1: {1, 1, 1, 1, 1}, 2: {2, 2, 1}, 4: {4, 1}, 5: {5}, 6: {5}} {
		var sizes []int
		var all []string
		for token := ""; ; {
			entries, next, err := pageOf(ids, self, listVolumes, &csi.ListVolumesRequest{MaxEntries: limit, StartingToken: token})
			if err != nil {
				t.Fatal(err)
			}
			sizes, all = append(sizes, len(entries)), append(all, entries...)
			if token = next; token == "" {
				break
			}
		}
		if !slices.Equal(sizes, want) || !slices.Equal(all, ids) {
			t.Errorf("max_entries %d: pages of %v, want %v; entries %v", limit, sizes, want, all)
		}
	}
}

func TestPageLeavesItsInputAlone(t *testing.T) {
	ids := handles(3)
	slices.Reverse(ids)
	before := slices.Clone(ids)
	if _, _, err := pageOf(ids, self, listVolumes, &csi.ListVolumesRequest{}); err != nil || !slices.Equal(ids, before) {
		t.Errorf("%v, input %v", err, ids)
	}
}

// Whatever exists all the time is listed exactly once and in order, whatever comes and goes between pages.
func TestPagesSurviveChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := handles(12)
		subset := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, len(all), self)
		stays := subset.Draw(t, "stays")
		var listed []string
		for token := ""; ; {
			now := slices.Concat(stays, subset.Draw(t, "passing"))
			slices.Sort(now)
			now = slices.Compact(now)
			limit := rapid.Int32Range(1, 4).Draw(t, "max_entries")
			entries, next, err := pageOf(now, self, listVolumes, &csi.ListVolumesRequest{MaxEntries: limit, StartingToken: token})
			if err != nil || len(entries) > int(limit) {
				t.Fatalf("%d entries, %v", len(entries), err)
			}
			listed = append(listed, entries...)
			if token = next; token == "" {
				break
			}
		}
		if !slices.IsSorted(listed) || len(slices.Compact(slices.Clone(listed))) != len(listed) {
			t.Fatalf("listed %v", listed)
		}
		for _, id := range stays {
			if !slices.Contains(listed, id) {
				t.Fatalf("%s is not in %v", id, listed)
			}
		}
	})
}

func TestBadTokens(t *testing.T) {
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	volume, snapshot := volumeHandle(testNode, "v"), snapshotHandle(testNode, "s")
	good := formatToken(listVolumes, volume)
	for name, token := range map[string]string{
		"text":                 "invalid-token",
		"number":               "5",
		"not base64":           "%%%",
		"another list":         formatToken(listHealth, volume),
		"snapshots":            formatToken(listSnapshots, snapshot),
		"snapshot in volumes":  formatToken(listVolumes, snapshot),
		"no id":                encode("volumes:"),
		"no separator":         encode("volumes"),
		"malformed id":         encode("volumes:v1/x/y"),
		"truncated":            good[:len(good)-2],
		"padded":               good + "==",
		"line break":           good[:4] + "\n" + good[4:],
		"something at the end": encode("volumes:" + volume + "x"),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := pageOf(handles(3), self, listVolumes, &csi.ListVolumesRequest{StartingToken: token})
			wantCode(t, finalStatus(err), codes.Aborted, "starting_token")
		})
	}
	if len(good) > maxString {
		t.Errorf("a token has %d bytes", len(good))
	}
	if _, _, err := pageOf(handles(3), self, listVolumes, &csi.ListVolumesRequest{MaxEntries: -1}); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(formatToken(listVolumes, volumeHandle(testNode, "v")))
	f.Add(formatToken(listSnapshots, snapshotHandle(testNode, "s")))
	f.Add("")
	f.Add("invalid-token")
	f.Fuzz(func(t *testing.T, token string) {
		for _, kind := range []listKind{listVolumes, listSnapshots, listHealth} {
			id, err := parseToken(kind, token)
			switch {
			case err != nil && status.Code(err) != codes.Aborted:
				t.Fatalf("got %v", err)
			case err == nil && token == "" && id != "", err == nil && token != "" && formatToken(kind, id) != token:
				t.Fatalf("token %q is read as %q", token, id)
			}
		}
	})
}

func pageOf[T any](items []T, id func(T) string, kind listKind, req pageRequest) ([]T, string, error) {
	after, err := parsePage(kind, req)
	if err != nil {
		return nil, "", err
	}
	entries, next := page(items, id, kind, after, req.GetMaxEntries())
	return entries, next, nil
}
