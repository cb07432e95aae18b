package blockcopy

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

const pageBytes = 4096

// TestCopySurvivesPowerCuts: whatever the data and the sizes, however often a copy is cut short, and whichever of the
// writes after the last checkpoint are lost: continued from there, the copy is right in the end.
func TestCopySurvivesPowerCuts(t *testing.T) {
	source, destination := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "destination")
	rapid.Check(t, func(t *rapid.T) {
		pages := rapid.IntRange(1, 300).Draw(t, "pages")
		data := sparse(t, pages)
		req := Request{
			Source: source, Destination: destination, SizeBytes: int64(len(data)),
			DestinationZeroed: rapid.Bool().Draw(t, "zeroed"),
		}
		before := make([]byte, len(data)+rapid.IntRange(0, 100).Draw(t, "tail")*pageBytes)
		if !req.DestinationZeroed {
			garbage(before)
		}
		put(t, source, append(bytes.Clone(data), 1, 2, 3)) // what is behind SizeBytes is not copied
		put(t, destination, before)
		opts := Options{
			BlockBytes:         rapid.IntRange(1, 5).Draw(t, "block") * skipBytes,
			Parallelism:        rapid.IntRange(1, 5).Draw(t, "parallelism"),
			CheckpointInterval: 1, // after every block
		}
		for cut := rapid.IntRange(0, 4).Draw(t, "cuts"); cut > 0; cut-- {
			at := rapid.IntRange(0, 3).Draw(t, "checkpoint")
			durable := copyUntil(t, req, opts, at)
			losePages(destination, t, before, durable)
			opts.OffsetBytes = durable
		}
		opts.OnCheckpoint = nil
		p, err := Copy(t.Context(), req, opts)
		if err != nil {
			t.Fatal(err)
		}
		if p.DurableBytes != p.TotalBytes {
			t.Errorf("done, with %d of %d bytes durable", p.DurableBytes, p.TotalBytes)
		}
		want := make([]byte, len(before))
		copy(want, data)
		if got := get(t, destination); !bytes.Equal(got, want) {
			t.Errorf("the copy differs, first at byte %d", firstDifference(got, want))
		}
	})
}

// copyUntil ends the copy at its nth checkpoint, and returns what the last one before the end said.
func copyUntil(t *rapid.T, req Request, opts Options, nth int) (durable int64) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	durable = opts.OffsetBytes
	opts.OnCheckpoint = func(p Progress) {
		if p.DurableBytes < durable {
			t.Errorf("durable were %d bytes, now %d", durable, p.DurableBytes)
		}
		durable = p.DurableBytes
		if nth--; nth <= 0 {
			cancel()
		}
	}
	p, err := Copy(ctx, req, opts)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if p.DurableBytes != durable {
		t.Errorf("returned are %d durable bytes, the last checkpoint said %d", p.DurableBytes, durable)
	}
	return durable
}

// losePages puts some of the pages that were not flushed back to what they held before.
func losePages(path string, t *rapid.T, before []byte, durable int64) {
	now := get(t, path)
	lost := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "lost"), 0)) //nolint:gosec // no secret
	for at := int(durable); at < len(now); at += pageBytes {
		if end := min(at+pageBytes, len(now)); lost.IntN(2) == 0 {
			copy(now[at:end], before[at:end])
		}
	}
	put(t, path, now)
}

// sparse is data with runs of zeroes, and some pages that are zero but for one byte.
func sparse(t *rapid.T, pages int) []byte {
	data := make([]byte, pages*pageBytes)
	for at := 0; at < len(data); {
		run := data[at:min(at+rapid.IntRange(1, 100).Draw(t, "run")*pageBytes, len(data))]
		switch rapid.SampledFrom([]string{"data", "zero", "almost"}).Draw(t, "kind") {
		case "data":
			garbage(run)
		case "almost":
			run[rapid.IntRange(0, len(run)-1).Draw(t, "byte")] = 1
		}
		at += len(run)
	}
	return data
}

func garbage(b []byte) {
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

type fataler interface {
	Helper()
	Fatal(args ...any)
}

func put(t fataler, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(t fataler, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzNextRun: runs cover everything, in whole grains, and say the truth.
func FuzzNextRun(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0}, uint8(2))
	f.Add(make([]byte, 33), uint8(16))
	f.Add([]byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, grain uint8) {
		size := int(grain) + 1
		var wasZero, second bool
		for rest := b; len(rest) > 0; second = true {
			n, zero := nextRun(rest, size)
			if n <= 0 || n > len(rest) || n%size != 0 && n != len(rest) {
				t.Fatalf("a run of %d of %d bytes in grains of %d", n, len(rest), size)
			}
			if second && zero == wasZero {
				t.Error("a run that the one before should have held")
			}
			for at := 0; at < n; at += size {
				grain := rest[at:min(at+size, n)]
				if all := len(bytes.Trim(grain, "\x00")) == 0; all != zero {
					t.Errorf("grain %v, taken for zero: %v", grain, zero)
				}
			}
			rest, wasZero = rest[n:], zero
		}
	})
}
