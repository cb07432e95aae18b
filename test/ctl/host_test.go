//go:build lab

package ctl_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// labFindings are those of the lab's machine itself.
var labFindings = []string{}

func aboutTheHost(f storage.Finding) bool { return f.Object == "host" }

// LVM's filters are the host's: what they hide of a group is a finding, and volumes that they do not hide, and nothing where they are right.
func TestLabFilters(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: pool, PoolSize: "64m", MetadataSize: "16m", Disks: 2})
	labtest.Run(t, "lvcreate", "--type", "thin", "--virtualsize", "16m", "--name", "v", "--thinpool", vg.Name+"/"+pool)
	conf, err := os.ReadFile(filepath.Join(os.Getenv("LVM_SYSTEM_DIR"), "lvm.conf"))
	if err != nil {
		t.Fatal(err)
	}
	filter := regexp.MustCompile(`global_filter = \[(.*)\]`)
	accepted := filter.FindStringSubmatch(string(conf))[1]
	for name, tt := range map[string]struct {
		scan   string
		filter string
		want   []string
		words  string
	}{
		"hides a disk":         {"0", `"r|^` + vg.Disks[1] + `$|",` + accepted, []string{"PhysicalVolumeHidden"}, vg.Disks[1]},
		"scans what is hidden": {"1", accepted, nil, ""},
		"scans volumes":        {"1", `"a|.*|"`, []string{"LVsAreScanned"}, vg.Name},
	} {
		t.Run(name, func(t *testing.T) {
			r := &machine{t: t, vg: vg, dir: t.TempDir()}
			text := filter.ReplaceAllLiteralString(string(conf), "scan_lvs = "+tt.scan+"\n	global_filter = ["+tt.filter+"]")
			r.ok(os.WriteFile(filepath.Join(r.dir, "lvm.conf"), []byte(text), 0o600))
			t.Setenv("LVM_SYSTEM_DIR", r.dir)
			host := slices.DeleteFunc(r.report().Findings, func(f storage.Finding) bool { return !aboutTheHost(f) })
			want := slices.Sorted(slices.Values(append(slices.Clone(labFindings), tt.want...)))
			if !slices.Equal(reasons(host), want) {
				t.Errorf("%+v, want %v", host, want)
			}
			for _, f := range host {
				if slices.Contains(tt.want, f.Reason) && !strings.Contains(f.Message, tt.words) {
					t.Errorf("no %s in %q", tt.words, f.Message)
				}
			}
		})
	}
}
