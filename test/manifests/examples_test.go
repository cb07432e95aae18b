package manifests_test

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// What an example names is in the examples, or among the classes that are installed.
func TestExamplesReferTo(t *testing.T) {
	have := map[string]bool{}
	for _, o := range chartObjects(t, "") {
		have[o.GetKind()+" "+o.GetName()] = true
	}
	examples := exampleFiles(t)
	for _, objects := range examples {
		for _, o := range objects {
			have[o.GetKind()+" "+o.GetName()] = true
		}
	}
	for file, objects := range examples {
		for _, o := range objects {
			for _, name := range referred(o) {
				if !have[name] {
					t.Errorf("%s: %s refers to %s, which is nowhere", file, o.key(), name)
				}
			}
		}
	}
}

func referred(o object) []string {
	var names []string
	switch v := o.typed.(type) {
	case *corev1.PersistentVolumeClaim:
		names = append(names, "StorageClass "+*v.Spec.StorageClassName)
		if s := v.Spec.DataSource; s != nil {
			names = append(names, s.Kind+" "+s.Name)
		}
	case *corev1.Pod:
		for _, volume := range v.Spec.Volumes {
			names = append(names, "PersistentVolumeClaim "+volume.PersistentVolumeClaim.ClaimName)
		}
	case *snapshotv1.VolumeSnapshot:
		if c := v.Spec.VolumeSnapshotClassName; c != nil {
			names = append(names, "VolumeSnapshotClass "+*c)
		}
		if p := v.Spec.Source.PersistentVolumeClaimName; p != nil {
			names = append(names, "PersistentVolumeClaim "+*p)
		}
		if c := v.Spec.Source.VolumeSnapshotContentName; c != nil {
			names = append(names, "VolumeSnapshotContent "+*c)
		}
	}
	return names
}

// The driver that classes and contents name is the one that is installed.
func TestExamplesNameTheDriver(t *testing.T) {
	for file, objects := range exampleFiles(t) {
		for _, o := range objects {
			driver := "csi.lvmsnap.io"
			switch v := o.typed.(type) {
			case *storagev1.StorageClass:
				driver = v.Provisioner
			case *snapshotv1.VolumeSnapshotClass:
				driver = v.Driver
			case *snapshotv1.VolumeSnapshotContent:
				driver = v.Spec.Driver
			}
			if driver != "csi.lvmsnap.io" {
				t.Errorf("%s: %s is of %s", file, o.key(), driver)
			}
		}
	}
}

// A manifest inside an example (the one that the CronJob applies) is what its type allows, too.
func TestExamplesInExamples(t *testing.T) {
	found := 0
	for file, objects := range exampleFiles(t) {
		for _, o := range objects {
			if m, ok := o.typed.(*corev1.ConfigMap); ok {
				for name, text := range m.Data {
					found += len(decode(t, file+" "+name, text))
				}
			}
		}
	}
	if found != 1 {
		t.Errorf("%d manifests in ConfigMaps", found)
	}
}

// Every example is somewhere in the documentation, and the documentation names no example that there is not.
func TestExamplesAreDocumented(t *testing.T) {
	all := strings.Join(slices.Collect(maps.Values(documentation(t))), "\n")
	examples := exampleFiles(t)
	for _, file := range slices.Sorted(maps.Keys(examples)) {
		if !strings.Contains(all, "examples/"+file) {
			t.Errorf("examples/%s is not in the documentation", file)
		}
	}
	for _, after := range strings.Split(all, "examples/")[1:] {
		name, _, ok := strings.Cut(after, ".yaml")
		if ok && !strings.ContainsAny(name, " \n/`)") && examples[name+".yaml"] == nil {
			t.Errorf("the documentation has examples/%s.yaml, which is not there", name)
		}
	}
}

var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")

// manifest is one with a type, and not somebody's configuration; that of a Kustomization and CDI's are not known here.
var manifest, foreignType = regexp.MustCompile(`(?m)^apiVersion: `), regexp.MustCompile(`(?m)^(kind: Kustomization|apiVersion: cdi\.kubevirt\.io/)`)

// The manifests in the documentation's text are what their types allow.
func TestManifestsInDocumentation(t *testing.T) {
	kinds := map[string]int{}
	for file, text := range documentation(t) {
		for i, block := range yamlBlock.FindAllStringSubmatch(text, -1) {
			if !manifest.MatchString(block[1]) || foreignType.MatchString(block[1]) {
				continue
			}
			for _, o := range decode(t, fmt.Sprintf("%s, block %d", file, i+1), block[1]) {
				kinds[o.GetKind()]++
			}
		}
	}
	for _, kind := range []string{"StorageClass", "VolumeSnapshot", "PersistentVolumeClaim"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s was found in the documentation", kind)
		}
	}
}

// documentation is the README and every page in docs/.
func documentation(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{"README.md": readFile(t, "../../README.md")}
	err := filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			pages[path] = readFile(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}
