//go:build lab

package lvm_test

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

var update = flag.Bool("update", false, "write what the lab's LVM reports to testdata")

// recorder keeps what the processes that it starts report.
type recorder struct {
	hostexec.Host
	raw *bytes.Buffer
}

func (r recorder) Start(c hostexec.Command) (*hostexec.Process, error) {
	p, err := r.Host.Start(c)
	if err == nil {
		report := p.Report
		p.Report = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(report, r.raw), report}
	}
	return p, err
}

// TestRecord runs what testdata is made of, and with -update records it. Without, it checks that the lab's LVM
// still writes documents of the same shape.
func TestRecord(t *testing.T) {
	env := labConfig(t)
	labtest.VolumeGroup(t, labtest.Options{Name: "vg0", ThinPool: "pool", PoolSize: "512m", PoolMetadataSize: "4m", ChunkSize: "64k"})
	var raw bytes.Buffer
	r := recorder{raw: &raw}
	shell, exec := newLabShell(t, r, env), lvm.Exec{Runner: r, Env: env}
	lvs := "lvs --units b --nosuffix --options " + lvm.LVFields + " vg0"
	vgs := "vgs --units b --nosuffix --options " + lvm.VGFields + " vg0"
	for _, c := range []struct {
		name, command string
		exec          lvm.Executor
	}{
		{"empty.json", lvs, shell},
		{"lvcreate.json", "lvcreate --type thin --virtualsize 16777216b --name v1 --setactivationskip y --activate n --addtag a=b --addtag c&d --thinpool vg0/pool", shell},
		{"exists.json", "lvcreate --type thin --virtualsize 16777216b --name v1 --setactivationskip y --activate n --thinpool vg0/pool", shell},
		{"lvcreate.exec.json", "lvcreate --snapshot --name s1 --permission r --setactivationskip y --addtag t vg0/v1", exec},
		{"lvchange.json", "lvchange --activate y --ignoreactivationskip vg0/v1", shell},
		{"lvs.json", lvs, shell},
		{"lvs.exec.json", lvs, exec},
		{"vgs.json", vgs, shell},
		{"vgs.exec.json", vgs, exec},
		{"thick.json", "lvcreate --type linear --size 8388608b --name t1 --setactivationskip y --activate n --zero n --wipesignatures n --addtag a=b vg0", shell},
		{"cow.json", "lvcreate --snapshot --size 4194304b --chunksize 4096b --name c1 --permission r --setactivationskip y --addtag t vg0/t1", shell},
		{"extended.json", "lvextend --size 16777216b vg0/t1", shell}, // behind the COW: a second segment
		{"thick.lvs.json", lvs, shell},
		{"passedover.json", "lvremove --yes --select lv_role!=thickorigin vg0/t1", shell},
		{"removed.json", "lvremove --yes --select lv_role!=thickorigin vg0/c1", shell},
		{"nogroup.json", "lvs --units b --nosuffix --options lv_name novg", shell},
		{"nogroup.exec.json", "lvs --units b --nosuffix --options lv_name novg", exec},
		{"notfound.json", "lvremove --yes vg0/gone", shell},
		{"usage.json", "lvs --bogus vg0", shell},
		{"usage.exec.json", "lvs --bogus vg0", exec},
		{"nocommand.json", "lvbogus vg0", shell},
	} {
		raw.Reset()
		if _, err := c.exec.Run(t.Context(), strings.Fields(c.command)...); err != nil {
			t.Fatalf("%s: %v", c.command, err)
		}
		path := filepath.Join("testdata", c.name)
		if *update {
			if err := os.WriteFile(path, raw.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if shape(raw.String()) != shape(string(want)) {
			t.Errorf("%s: LVM wrote\n%s\nrecorded is\n%s", c.name, raw.String(), want)
		}
	}
}

// shape is a document without its values.
func shape(s string) string {
	var out strings.Builder
	for _, line := range strings.SplitAfter(s, "\n") {
		for i, part := range strings.Split(line, `"`) {
			if i%4 != 3 { // the value of a "key":"value" pair
				out.WriteString(part + `"`)
			}
		}
	}
	return out.String()
}
