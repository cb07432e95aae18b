package manifests_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// modules are the sources of the sidecars that the Go module proxy has, with where their flags are. The lists of
// node-driver-registrar and livenessprobe, which it does not have, were made by hand of their main.go.
var modules = map[string]struct{ module, main string }{
	"csi-provisioner":     {"github.com/kubernetes-csi/external-provisioner/v6", "cmd/csi-provisioner/csi-provisioner.go"},
	"csi-snapshotter":     {"github.com/kubernetes-csi/external-snapshotter/v8", "cmd/csi-snapshotter/main.go"},
	"snapshot-controller": {"github.com/kubernetes-csi/external-snapshotter/v8", "cmd/snapshot-controller/main.go"},
	"csi-resizer":         {"github.com/kubernetes-csi/external-resizer/v2", "cmd/csi-resizer/main.go"},
}

// Every flag that a sidecar is given is one of that sidecar in that version. A new version has no list yet:
// `make manifests` makes it.
func TestSidecarFlags(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range everyObject(t) {
		for _, c := range containers(o.typed) {
			image := c.Image[strings.LastIndex(c.Image, "/")+1:]
			if !strings.HasPrefix(c.Image, "registry.k8s.io/sig-storage/") {
				continue
			}
			seen[c.Name] = true
			known := flagList(t, image)
			for _, arg := range c.Args {
				name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
				if !slices.Contains(known, name) {
					t.Errorf("%s %s: %s has no flag --%s", o.key(), c.Name, image, name)
				}
			}
		}
	}
	for _, name := range []string{"node-driver-registrar", "liveness-probe", "csi-provisioner", "csi-snapshotter", "csi-resizer", "snapshot-controller"} {
		if !seen[name] {
			t.Errorf("no container %s was looked at", name)
		}
	}
}

// flagList is testdata/flags/IMAGE:VERSION, a name per line.
func flagList(t *testing.T, image string) []string {
	t.Helper()
	file := filepath.Join("testdata", "flags", strings.Replace(image, ":", "-", 1))
	if *update {
		name, version, _ := strings.Cut(image, ":")
		if m, ok := modules[name]; ok {
			text := strings.Join(flagsOf(t, m.module+"@"+version, m.main), "\n") + "\n"
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (for what it must have see modules)", err)
	}
	return strings.Fields(string(text))
}

var (
	flagPattern = regexp.MustCompile(`\b(?:flag|flags|fs)\.[A-Za-z0-9]+\(\s*(?:[^"(),]+(?:\([^()]*\))?,\s*)?"([a-z0-9-]+)"`)
	libPattern  = regexp.MustCompile(`(?m)^\tgithub\.com/kubernetes-csi/csi-lib-utils (\S+)`)
)

// flagsOf reads the flags out of the source of a sidecar, and those that it has in common with all of them.
func flagsOf(t *testing.T, module, file string) []string {
	t.Helper()
	dir := download(t, module)
	main := readFile(t, filepath.Join(dir, file))
	goMod := readFile(t, filepath.Join(dir, "go.mod"))
	names := []string{"v", "vmodule"} // component-base's logs
	sources := main
	if strings.Contains(main, "RegisterCommonFlags") {
		lib := download(t, "github.com/kubernetes-csi/csi-lib-utils@"+libPattern.FindStringSubmatch(goMod)[1])
		sources += readFile(t, filepath.Join(lib, "standardflags", "flags.go"))
	}
	for _, m := range flagPattern.FindAllStringSubmatch(sources, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func download(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir() // outside of every module
	text, err := cmd.Output()
	var answer struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(text, &answer); jsonErr != nil || err != nil || answer.Error != "" {
		t.Fatalf("go mod download %s: %v %v %s", module, err, jsonErr, answer.Error)
	}
	return answer.Dir
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// driverInputs is what the driver's own tests read: cmd/lvmsnap parses the flags, pkg/driver the parameters.
type driverInputs struct {
	Args                     [][]string          `json:"args"`
	StorageClasses           []map[string]string `json:"storageClasses"`
	VolumeSnapshotClasses    []map[string]string `json:"volumeSnapshotClasses"`
	StorageClassMountOptions [][]string          `json:"storageClassMountOptions"`
}

// What the manifests give to the driver is in testdata/driver-inputs.json, which the driver's own tests read.
func TestDriverInputs(t *testing.T) {
	var got driverInputs
	for _, o := range everyObject(t) {
		collect(&got, o)
	}
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/driver-inputs.json"
	if *update {
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := readFile(t, file); want != string(text)+"\n" {
		t.Errorf("%s is not what the manifests have; `make manifests` writes it", file)
	}
	if len(got.Args) < len(allSets) || len(got.StorageClasses) == 0 || len(got.VolumeSnapshotClasses) == 0 {
		t.Errorf("too little was found: %+v", got)
	}
}

// collect adds what an object gives to the driver, once.
func collect(in *driverInputs, o object) {
	switch o.GetKind() {
	case "StorageClass":
		in.StorageClasses = appendNew(in.StorageClasses, stringMap(o, "parameters"))
		if options, found, _ := nestedStrings(o, "mountOptions"); found {
			in.StorageClassMountOptions = appendNew(in.StorageClassMountOptions, options)
		}
	case "VolumeSnapshotClass":
		in.VolumeSnapshotClasses = appendNew(in.VolumeSnapshotClasses, stringMap(o, "parameters"))
	}
	for _, c := range containers(o.typed) {
		if c.Name == "lvmsnap" {
			in.Args = appendNew(in.Args, c.Args)
		}
	}
}

func appendNew[T any](list []T, item T) []T {
	for _, have := range list {
		if fmt.Sprint(have) == fmt.Sprint(item) {
			return list
		}
	}
	return append(list, item)
}

// driverContainer is the one that is privileged.
func driverContainer(spec corev1.PodSpec) *corev1.Container {
	for i := range spec.Containers {
		if spec.Containers[i].Name == "lvmsnap" {
			return &spec.Containers[i]
		}
	}
	return nil
}
