package ctl_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

// What people see. Every command here runs on an executor that lets no change through.
func TestGolden(t *testing.T) {
	n, orders, nightly := shop(t)
	n.programs["thin_ls"] = n.thinLS(map[string]string{lvOf(orders.ID): "81920 16384 65536", lvOf(nightly.ID): "73728 8192 65536"})
	for name, args := range map[string]string{
		"volumes": "get volumes", "volumes-wide": "get vol -o wide --sort-by age", "volumes-space": "get volumes --space --sort-by exclusive",
		"snapshots": "get snapshots", "snapshots-wide": "get snap -o wide", "snapshots-json": "get snapshots -o json", "snapshots-space": "get snapshots --space",
		"pools": "get pools", "pools-wide": "get pools -o wide", "pools-yaml": "get pools -o yaml", "pools-color": "get pools --color always",
		"groups": "get groups --no-headers", "tree": "tree", "describe-volume": "describe shop/orders --space", "describe-snapshot": "describe shop/logs-snapshot",
		"describe-pool": "describe " + pool, "describe-yaml": "describe pvc-restored -o yaml", "doctor": "doctor",
	} {
		t.Run(name, func(t *testing.T) {
			n.t = t
			n.golden(name, strings.Fields(strings.ReplaceAll(args, "shop/logs-snapshot", "snapshot-logs"))...)
		})
	}
	if n.kernel.root != 0 {
		t.Error("a metadata snapshot was left behind")
	}
}

// thinLS answers as thin_ls does, with the numbers of some logical volumes.
func (n *fakeNode) thinLS(numbers map[string]string) func([]string) (string, int) {
	return func([]string) (string, int) {
		if n.kernel.root == 0 {
			return "no metadata snapshot", 1
		}
		lvs, err := lvm.NewClient(n.LVM, group).LVs(context.Background())
		if err != nil {
			return err.Error(), 1
		}
		var out strings.Builder
		for _, lv := range lvs {
			if lv.Pool == "" {
				continue
			}
			text := numbers[lv.Name]
			if text == "" {
				text = "0 0 0"
			}
			fmt.Fprintf(&out, "%8d %s\n", lv.ThinID, text)
		}
		return out.String(), 0
	}
}

// Scripts depend on the exit codes.
func TestExitCodes(t *testing.T) {
	n, _, _ := shop(t)
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"":                                    {ctl.ExitOK, ""},
		"--version":                           {ctl.ExitOK, ""},
		"get pools":                           {ctl.ExitOK, ""},
		"doctor":                              {ctl.ExitOK, ""},
		"get":                                 {ctl.ExitUsage, "get takes volumes"},
		"get nothing":                         {ctl.ExitUsage, `unexpected argument "nothing"`},
		"nothing":                             {ctl.ExitUsage, `unexpected argument "nothing"`},
		"get pools more":                      {ctl.ExitUsage, "unexpected argument"},
		"get pools -o xml":                    {ctl.ExitUsage, `--output: "xml"`},
		"get volumes --sort-by beauty":        {ctl.ExitUsage, `--sort-by: "beauty"`},
		"get pools --no-such-flag":            {ctl.ExitUsage, "unknown flag"},
		"get pools --color pink":              {ctl.ExitUsage, "--color"},
		"get pools --volume-group -rf":        {ctl.ExitUsage, "not a valid LVM name"},
		"get pools --volume-group data,data":  {ctl.ExitUsage, "named twice"},
		"doctor --fix":                        {ctl.ExitUsage, "--volume-group"},
		"watch --interval 0s":                 {ctl.ExitUsage, "not positive"},
		"describe":                            {ctl.ExitUsage, "takes the name"},
		"describe no-such-thing":              {ctl.ExitNotFound, "no-such-thing"},
		"get pools --volume-group other":      {ctl.ExitFailed, "other"},
		"describe pvc-orders --output=wide":   {ctl.ExitUsage, "--output"},
		"describe shop/orders":                {ctl.ExitOK, ""},
		"support-bundle --file /no/such/file": {ctl.ExitFailed, "no such file"},
	} {
		if code := n.ctl(strings.Fields(args)...); code != want.code || !strings.Contains(n.err.String(), want.text) {
			t.Errorf("lvmsnapctl %s: exit code %d, %q; want %d, %q", args, code, n.err.String(), want.code, want.text)
		}
	}
	n.noGroup = true
	if code := n.ctl("get", "pools"); code != ctl.ExitFailed || !strings.Contains(n.err.String(), "--volume-group names one") {
		t.Errorf("nothing to be found: %d, %s", code, n.err.String())
	}
}

// What cannot be looked at keeps nobody from seeing the rest.
func TestPartial(t *testing.T) {
	n, _, _ := shop(t)
	for _, args := range []string{"get volumes --volume-group data,other", "tree --volume-group other,data", "describe shop/orders --volume-group data,other"} {
		if code := n.ctl(strings.Fields(args)...); code != ctl.ExitFailed || !strings.Contains(n.out.String(), "shop/orders") || !strings.Contains(n.err.String(), "other") {
			t.Errorf("%s: exit code %d, %s%s", args, code, n.out.String(), n.err.String())
		}
	}
	n.programs["thin_ls"] = func([]string) (string, int) { return "", 1 }
	if code := n.ctl("get", "volumes", "--space"); code != ctl.ExitFailed || !strings.Contains(n.out.String(), "shop/orders") || n.kernel.root != 0 {
		t.Errorf("thin_ls fails: exit code %d, root %d, %s%s", code, n.kernel.root, n.out.String(), n.err.String())
	}
	empty := newNode(t)
	if code := empty.ctl("get", "snapshots", "-o", "json"); code != ctl.ExitOK || !strings.Contains(empty.out.String(), `"items": []`) {
		t.Errorf("nothing: %d, %s", code, empty.out.String())
	}
}

// Colors are for terminals, and only there, and the columns are the same.
func TestColor(t *testing.T) {
	n, _, _ := shop(t)
	plain := func(args ...string) string {
		n.ctl(args...)
		return n.out.String()
	}
	off := plain("get", "pools")
	if strings.Contains(off, "\x1b") {
		t.Errorf("colors without a terminal: %q", off)
	}
	n.terminal = true
	on := plain("get", "pools")
	if !strings.Contains(on, "\x1b[33m") {
		t.Errorf("no color on a terminal: %q", on)
	}
	if never := plain("get", "pools", "--color", "never"); never != off {
		t.Errorf("--color never: %q", never)
	}
	for _, code := range []string{"0", "2", "31", "32", "33"} {
		on = strings.ReplaceAll(on, "\x1b["+code+"m", "")
	}
	if on != off {
		t.Errorf("the colors move the columns:\n%s\n%s", on, off)
	}
}

// JSON and YAML say the same.
func TestStructured(t *testing.T) {
	n, _, _ := shop(t)
	n.ctl("get", "snapshots", "-o", "json")
	asJSON := bytes.Clone(n.out.Bytes())
	n.ctl("get", "snapshots", "-o", "yaml")
	asYAML, err := yaml.YAMLToJSON(n.out.Bytes())
	n.ok(err)
	var a, b struct{ Items []ctl.Snapshot }
	n.ok(json.Unmarshal(asJSON, &a))
	n.ok(json.Unmarshal(asYAML, &b))
	if len(a.Items) != 3 || fmt.Sprint(a.Items[0].Handle, len(a.Items)) != fmt.Sprint(b.Items[0].Handle, len(b.Items)) {
		t.Errorf("JSON has %+v, YAML %+v", a, b)
	}
}

// Shells complete the names of objects, and the values of flags.
func TestCompletion(t *testing.T) {
	n, _, _ := shop(t)
	for args, want := range map[string][]string{
		"describe ":                    {"shop/orders\tvolume", "shop/nightly\tsnapshot", "data/pool\tpool"},
		"get pools --output ":          {"table", "wide", "json", "yaml"},
		"get pools --volume-group ":    {"data"},
		"get ":                         {"volumes\t", "snapshots\t", "pools\t", "groups\t"},
		"get snapshots --sort-by ":     {"age", "exclusive"},
		"describe shop/orders another": {":4"}, // and nothing else
	} {
		fields := append([]string{"__complete"}, strings.Split(args, " ")...)
		if code := n.ctl(fields...); code != 0 {
			t.Errorf("%s: exit code %d", args, code)
		}
		for _, w := range want {
			if !strings.Contains(n.out.String(), w) {
				t.Errorf("%q completes to\n%s\nnot %q", args, n.out.String(), w)
			}
		}
	}
}

// The page of the reference is what the commands are.
func TestReference(t *testing.T) {
	var page bytes.Buffer
	if err := ctl.Reference(&page); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "lvmsnapctl.md"))
	if err != nil || string(got) != page.String() {
		t.Errorf("docs/reference/lvmsnapctl.md is not current (%v): make ctl-docs", err)
	}
	for _, command := range []string{"get volumes", "get snapshots", "get pools", "get groups", "tree", "describe", "doctor", "watch", "support-bundle"} {
		if !strings.Contains(page.String(), "\n## lvmsnapctl "+command+"\n") {
			t.Errorf("nothing about %s", command)
		}
	}
}

// A copy is followed to its end: the tag says how far it is.
func TestWatch(t *testing.T) {
	n := newNode(t)
	goOn, done := n.wiping()
	if n.ctl("get", "volumes"); !strings.Contains(n.out.String(), "Wiping") {
		t.Errorf("get volumes: %s", n.out.String())
	}
	if code := n.ctl("doctor", "--settle", "1ms"); code != ctl.ExitFindings || !strings.Contains(n.out.String(), "nobody writes it while the driver is down") {
		t.Errorf("doctor without a driver: %d, %s", code, n.out.String())
	}
	release, err := n.locks.Announce(t.Context(), group)
	n.ok(err)
	defer release()
	if code := n.ctl("doctor", "--settle", "1ms"); code != ctl.ExitOK || !strings.Contains(n.out.String(), "a driver is at work on it") {
		t.Errorf("doctor beside a driver: %d, %s", code, n.out.String())
	}
	watched := make(chan int, 1)
	go func() { watched <- n.ctl("watch", "--interval", "1ms") }()
	time.AfterFunc(20*time.Millisecond, func() { close(goOn) })
	n.ok(<-done)
	if code := <-watched; code != ctl.ExitOK || !strings.Contains(n.out.String(), "Nothing is being copied or wiped.") {
		t.Errorf("watch: %d, %s", code, n.out.String())
	}
}

// A bundle has what is listed, and no environment.
func TestBundle(t *testing.T) {
	t.Setenv("LVMSNAP_TEST_SECRET", "hunter2-environment")
	n, _, _ := shop(t)
	n.programs["dmsetup"] = says("data-pool: 0 8192 thin-pool\nother--group-vault: 0 1 crypt hunter2-key\ndata--base-x: 0 1 linear\n")
	if code := n.ctl("support-bundle", "--file", "-"); code != ctl.ExitOK {
		t.Fatalf("exit code %d: %s", code, n.err.String())
	}
	files := unpack(t, n.out.Bytes())
	var names []string
	for name, text := range files {
		names = append(names, strings.TrimPrefix(name, "lvmsnap-support/"))
		if strings.Contains(text, "hunter2") {
			t.Errorf("%s has a secret: %s", name, text)
		}
	}
	for _, want := range []string{
		"version.txt", "inventory.json", "doctor.json", "lvs.txt", "vgs.txt", "lvmconfig.txt", "dmsetup-status.txt", "mounts.txt", "processes.txt", "kernel.txt",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %v", want, names)
		}
	}
	if got := files["lvmsnap-support/dmsetup-status.txt"]; got != "data-pool: 0 8192 thin-pool\n" {
		t.Errorf("dmsetup-status.txt: %q", got)
	}
	var inv ctl.Inventory
	if err := json.Unmarshal([]byte(files["lvmsnap-support/inventory.json"]), &inv); err != nil || len(inv.Volumes) != 3 || len(inv.Snapshots) != 3 {
		t.Errorf("inventory.json: %v, %+v", err, inv)
	}
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	for _, want := range []int{ctl.ExitOK, ctl.ExitFailed} { // it overwrites nothing
		if code := n.ctl("support-bundle", "--file", file); code != want {
			t.Errorf("exit code %d, want %d: %s", code, want, n.err.String())
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func unpack(t *testing.T, bundle []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(bundle))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(text)
	}
}

// recorder is an executor that remembers.
type recorder struct{ got []string }

func (r *recorder) Run(_ context.Context, args ...string) (lvm.Output, error) {
	r.got = args
	return lvm.Output{}, nil
}

// The real executor lets questions through, without locks, and nothing else.
func TestReadOnly(t *testing.T) {
	var r recorder
	e := ctl.ReadOnly(&r, "devices/x=1")
	for _, args := range [][]string{{"lvcreate", "x"}, {"lvchange", "-ay", "data/x"}, {"vgchange"}, {"lvremove"}, {}} {
		if _, err := e.Run(t.Context(), args...); err == nil || r.got != nil {
			t.Errorf("%v: %v, ran %v", args, err, r.got)
		}
	}
	if _, err := e.Run(t.Context(), "vgs", "--options", "pv_name", "data"); err != nil || r.got[0] != "vgs" || !slices.Contains(r.got, "--readonly") || !strings.HasSuffix(r.got[3], " devices/x=1") || r.got[len(r.got)-1] != "data" {
		t.Errorf("%v: ran %v", err, r.got)
	}
}

var snapshotCreation = lvmtest.Verb("lvcreate", "--snapshot")
