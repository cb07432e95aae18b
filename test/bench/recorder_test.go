//go:build lab

package bench

import (
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// recorder writes samples in Go's benchmark format (golang.org/design/14313-benchmark-format).
type recorder struct {
	b      testing.TB
	out    *benchfmt.Writer
	config []benchfmt.Config
}

// newRecorder appends to the file of -samples: what is known outside of the lab only stands in it already.
func newRecorder(b testing.TB) recorder {
	b.Helper()
	var out io.Writer = os.Stdout
	if *samplesFile != "" {
		f, err := os.OpenFile(*samplesFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := f.Close(); err != nil {
				b.Error(err)
			}
		})
		out = f
	}
	r := recorder{b: b, out: benchfmt.NewWriter(out)}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		b.Fatal(err)
	}
	_, version := driverproc.Run(b, nil, "--version")
	version = strings.TrimPrefix(version, "lvmsnap ")
	for _, line := range [][2]string{
		{"goos", runtime.GOOS},
		{"goarch", runtime.GOARCH},
		{"lvmsnap", version},
		{"date", time.Now().UTC().Format(time.DateOnly)},
		{"lab", labtest.Mode(b)},
		{"kernel", unix.ByteSliceToString(uname.Release[:])},
		{"lvm", lvmVersion(b)},
	} {
		r.config = append(r.config, benchfmt.Config{Key: line[0], Value: []byte(strings.TrimSpace(line[1])), File: true})
	}
	return r
}

func lvmVersion(b testing.TB) string {
	b.Helper()
	for line := range strings.Lines(labtest.Run(b, "lvm", "version")) {
		if _, version, found := strings.Cut(line, "LVM version:"); found {
			return version
		}
	}
	b.Fatal("`lvm version` names none")
	return ""
}

func (r *recorder) write(name string, iterations int, v values) {
	r.b.Helper()
	if err := r.out.Write(&benchfmt.Result{Config: r.config, Name: benchfmt.Name(name), Iters: iterations, Values: v}); err != nil {
		r.b.Fatal(err)
	}
}

// values of one sample.
type values []benchfmt.Value

func (v values) number(unit string, n float64) values {
	return append(v, benchfmt.Value{Value: n, Unit: unit})
}

// nanoseconds are written as what they are: a float of seconds would be long and no better.
func (v values) nanoseconds(unit string, d time.Duration) values {
	return append(v, benchfmt.Value{Value: d.Seconds(), Unit: "sec", OrigValue: float64(d.Nanoseconds()), OrigUnit: unit})
}
