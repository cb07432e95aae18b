//go:build lab

package kubelet_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const repository = "../../.."

// parse reads a stream of YAML documents.
func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	decoder := k8syaml.NewYAMLOrJSONDecoder(bufio.NewReader(strings.NewReader(text)), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

func file(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// example is a file of examples/: the flows use these, not copies.
func example(t *testing.T, name string) []*unstructured.Unstructured {
	t.Helper()
	return file(t, filepath.Join(repository, "examples", name))
}

// kustomize is `kubectl kustomize`.
func kustomize(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(repository, "deploy", dir))
	if err != nil {
		t.Fatal(err)
	}
	text, err := result.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// named is the object of this kind and name; an empty name is the first.
func named(objects []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	i := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == kind && (name == "" || o.GetName() == name)
	})
	if i < 0 {
		return nil
	}
	return objects[i]
}

// resource is where objects like this one live.
func (c *cluster) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil { // it may be newer than what was discovered
		c.mapper.Reset()
		mapping, err = c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == "root" {
		return c.dynamic.Resource(mapping.Resource), nil
	}
	namespace := o.GetNamespace()
	if namespace == "" {
		namespace = "default"
	}
	return c.dynamic.Resource(mapping.Resource).Namespace(namespace), nil
}

// apply is `kubectl apply --server-side`. The kind of an object may still be on its way, and so may the account of a pod.
func (c *cluster) apply(objects ...*unstructured.Unstructured) {
	c.t.Helper()
	for _, o := range objects {
		var err error
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			var r dynamic.ResourceInterface
			if r, err = c.resource(o); err == nil {
				_, err = r.Apply(c.context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "e2e"})
			}
			if err == nil || apierrors.IsInvalid(err) {
				break
			}
		}
		if err != nil {
			c.t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// get is the object as it is now.
func (c *cluster) get(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	r, err := c.resource(o)
	if err != nil {
		return nil, err
	}
	return r.Get(ctx, o.GetName(), metav1.GetOptions{})
}

func (c *cluster) patch(o *unstructured.Unstructured, patch string) {
	c.t.Helper()
	r, err := c.resource(o)
	if err == nil {
		_, err = r.Patch(c.context(), o.GetName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// field is a string, number or truth of an object as text; "" if it is not there.
func field(o *unstructured.Unstructured, path ...string) string {
	value, found, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	if !found {
		return ""
	}
	return fmt.Sprint(value)
}

// awaitField waits until a field has a value, and returns the object.
func (c *cluster) awaitField(o *unstructured.Unstructured, want string, path ...string) *unstructured.Unstructured {
	c.t.Helper()
	var got *unstructured.Unstructured
	await(c.t, fmt.Sprintf("%s %s to have %s=%s", o.GetKind(), o.GetName(), strings.Join(path, "."), want), 6*time.Minute, func(ctx context.Context) error {
		var err error
		if got, err = c.get(ctx, o); err != nil {
			return err
		}
		if value := field(got, path...); value != want {
			return fmt.Errorf("it is %q; its status: %v", value, got.Object["status"])
		}
		return nil
	})
	return got
}

// awaitCondition waits until a condition is true.
func (c *cluster) awaitCondition(o *unstructured.Unstructured, condition string) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("%s %s to be %s", o.GetKind(), o.GetName(), condition), 6*time.Minute, func(ctx context.Context) error {
		got, err := c.get(ctx, o)
		if err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(got.Object, "status", "conditions")
		for _, item := range conditions {
			if m := item.(map[string]any); m["type"] == condition && m["status"] == "True" {
				return nil
			}
		}
		return fmt.Errorf("its status: %v", got.Object["status"])
	})
}

// remove is `kubectl delete`: the objects, in this order, and each is waited for.
func (c *cluster) remove(objects ...*unstructured.Unstructured) {
	c.t.Helper()
	background := metav1.DeletePropagationBackground
	for _, o := range objects {
		r, err := c.resource(o)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := r.Delete(c.context(), o.GetName(), metav1.DeleteOptions{PropagationPolicy: &background}); err != nil && !apierrors.IsNotFound(err) {
			c.t.Fatal(err)
		}
		await(c.t, fmt.Sprintf("%s %s to be gone", o.GetKind(), o.GetName()), 6*time.Minute, func(ctx context.Context) error {
			switch got, err := c.get(ctx, o); {
			case apierrors.IsNotFound(err):
				return nil
			case err != nil:
				return err
			default:
				return fmt.Errorf("it has finalizers %v; its status: %v", got.GetFinalizers(), got.Object["status"])
			}
		})
	}
}
