package manifests_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// everyObject is every object that the repository ships: all overlays, the chart with all sets of values, the examples.
func everyObject(t *testing.T) []object {
	t.Helper()
	var out []object
	for _, overlay := range slices.Sorted(maps.Keys(variants)) {
		out = append(out, kustomize(t, filepath.Join(kustomizeDir, "overlays", overlay))...)
	}
	out = append(out, kustomize(t, "../../deploy/snapshot-controller")...)
	for _, values := range allSets {
		out = append(out, chartObjects(t, values)...)
	}
	examples := exampleFiles(t)
	for _, file := range slices.Sorted(maps.Keys(examples)) {
		out = append(out, examples[file]...)
	}
	return out
}

// podSpec is that of a pod or of what makes pods.
func podSpec(o runtime.Object) *corev1.PodSpec {
	switch o := o.(type) {
	case *appsv1.DaemonSet:
		return &o.Spec.Template.Spec
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template.Spec
	case *corev1.Pod:
		return &o.Spec
	}
	return nil
}

func containers(o runtime.Object) []corev1.Container {
	if spec := podSpec(o); spec != nil {
		return append(slices.Clone(spec.InitContainers), spec.Containers...)
	}
	return nil
}

func stringMap(o object, field string) map[string]string {
	m, _, _ := unstructured.NestedStringMap(o.Object, field)
	return m
}

func nestedStrings(o object, field string) ([]string, bool, error) {
	return unstructured.NestedStringSlice(o.Object, field)
}

// Only the driver's container is privileged; everything else has nothing but the socket. docs/explanation/privileges.md
func TestLeastPrivilege(t *testing.T) {
	for _, o := range everyObject(t) {
		spec := podSpec(o.typed)
		if spec == nil || o.GetKind() == "Pod" { // the examples' pods are the users'
			continue
		}
		hostNamespace := false
		if d := driverContainer(*spec); d != nil {
			hostNamespace = slices.Contains(d.Args, "--host-namespace")
			if spec.PriorityClassName != "system-node-critical" || spec.TerminationGracePeriodSeconds == nil || *spec.TerminationGracePeriodSeconds < 46 {
				t.Errorf("%s: priority %q, grace period %v: LVM has to come to its end (25 + 20 s)", o.key(), spec.PriorityClassName, spec.TerminationGracePeriodSeconds)
			}
			if !d.Resources.Limits.Memory().IsZero() || d.LivenessProbe != nil {
				t.Errorf("%s: a memory limit or a liveness probe kills LVM in the middle of its work", o.key())
			}
		}
		if spec.HostNetwork || spec.HostPID != hostNamespace || spec.HostIPC != (driverContainer(*spec) != nil) {
			t.Errorf("%s: hostNetwork %t, hostPID %t, hostIPC %t", o.key(), spec.HostNetwork, spec.HostPID, spec.HostIPC)
		}
		if s := spec.SecurityContext; s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: no seccomp profile", o.key())
		}
		for _, c := range containers(o.typed) {
			checkContainer(t, o, c)
		}
	}
}

func checkContainer(t *testing.T, o object, c corev1.Container) {
	t.Helper()
	s := c.SecurityContext
	if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%s %s: its root file system is writable", o.key(), c.Name)
		return
	}
	if c.Name == "lvmsnap" {
		if s.Privileged == nil || !*s.Privileged {
			t.Errorf("%s %s: Bidirectional mounts need a privileged container", o.key(), c.Name)
		}
	} else if s.Privileged != nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
		s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
		t.Errorf("%s %s: more privileges than it needs: %+v", o.key(), c.Name, s)
	}
	if o.GetKind() != "CronJob" && (c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero()) {
		t.Errorf("%s %s: no requests", o.key(), c.Name)
	}
	for _, m := range c.VolumeMounts {
		if m.Name == "socket-dir" && c.Name != "lvmsnap" && !m.ReadOnly {
			t.Errorf("%s %s: could replace the driver's socket", o.key(), c.Name)
		}
	}
}

// Mounts, probes and accounts refer to what there is: the types do not hold that, and a dry run needs a cluster.
func TestReferences(t *testing.T) {
	accounts := map[string]bool{}
	all := everyObject(t)
	for _, o := range all {
		if o.GetKind() == "ServiceAccount" {
			accounts[o.GetNamespace()+"/"+o.GetName()] = true
		}
	}
	for _, o := range all {
		spec := podSpec(o.typed)
		if spec == nil {
			continue
		}
		if spec.ServiceAccountName != "" && !accounts[o.GetNamespace()+"/"+spec.ServiceAccountName] {
			t.Errorf("%s: there is no service account %s", o.key(), spec.ServiceAccountName)
		}
		volumes, ports := map[string]bool{}, map[string]bool{}
		for _, v := range spec.Volumes {
			volumes[v.Name] = false
		}
		for _, c := range containers(o.typed) {
			for _, p := range c.Ports {
				ports[p.Name] = true
			}
		}
		for _, c := range containers(o.typed) {
			for _, m := range c.VolumeMounts {
				if _, ok := volumes[m.Name]; !ok {
					t.Errorf("%s %s: there is no volume %s", o.key(), c.Name, m.Name)
				}
				volumes[m.Name] = true
			}
			for _, d := range c.VolumeDevices {
				volumes[d.Name] = true
			}
			for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
				if p != nil && !ports[p.HTTPGet.Port.String()] {
					t.Errorf("%s %s: there is no port %s", o.key(), c.Name, p.HTTPGet.Port.String())
				}
			}
		}
		for name, used := range volumes {
			if !used {
				t.Errorf("%s: nobody mounts volume %s", o.key(), name)
			}
		}
	}
}

// No rule has a wildcard, reads secrets or may start pods, and the driver's own account nothing that can change other objects'
// rights.
func TestRBAC(t *testing.T) {
	for _, o := range everyObject(t) {
		var rules []rbacv1.PolicyRule
		switch r := o.typed.(type) {
		case *rbacv1.ClusterRole:
			rules = r.Rules
		case *rbacv1.Role:
			rules = r.Rules
		}
		for _, rule := range rules {
			for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs) {
				if word == "*" || word == "secrets" || strings.HasPrefix(word, "rbac.") || word == "impersonate" || word == "escalate" || word == "bind" {
					t.Errorf("%s: %q in %v", o.key(), word, rule)
				}
			}
			// Who says something about an object need not read it, and nobody takes back what others said.
			if slices.Contains(rule.Resources, "events") && !slices.Equal(rule.Verbs, []string{"create", "patch"}) && o.GetName() != "snapshot-controller" {
				t.Errorf("%s: may %v events", o.key(), rule.Verbs)
			}
			if slices.Contains(rule.Resources, "pods") && !slices.Equal(rule.Verbs, []string{"get"}) {
				t.Errorf("%s: may %v pods", o.key(), rule.Verbs)
			}
		}
	}
}
