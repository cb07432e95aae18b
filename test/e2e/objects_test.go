//go:build lab

package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const deployDir = "../../deploy"

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
	return file(t, filepath.Join("../../examples", name))
}

// kustomize is `kubectl kustomize`.
func kustomize(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(deployDir, dir))
	if err != nil {
		t.Fatal(err)
	}
	text, err := result.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// chart is what the Helm chart renders without values.
func chart(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	path := os.Getenv("E2E_CHART")
	if path == "" {
		t.Fatal("E2E_CHART is not set: run make e2e")
	}
	return file(t, path)
}

func ofKind(objects []*unstructured.Unstructured, kind string) *unstructured.Unstructured {
	for _, o := range objects {
		if o.GetKind() == kind {
			return o
		}
	}
	return nil
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

// create is `kubectl create --validate=strict`, with dryRun `--dry-run=server`.
func (c *cluster) create(o *unstructured.Unstructured, dryRun bool) error {
	r, err := c.resource(o)
	if err != nil {
		return err
	}
	options := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	_, err = r.Create(c.context(), o, options)
	return err
}

// apply makes objects, whose kinds may still be on their way.
func (c *cluster) apply(objects ...*unstructured.Unstructured) {
	c.t.Helper()
	for _, o := range objects {
		var err error
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			if err = c.create(o, false); err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsInvalid(err) {
				break
			}
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			c.t.Fatalf("create %s %s: %v", o.GetKind(), o.GetName(), err)
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
	return c.awaitFieldFor(90*time.Second, o, want, path...)
}

func (c *cluster) awaitFieldFor(limit time.Duration, o *unstructured.Unstructured, want string, path ...string) *unstructured.Unstructured {
	c.t.Helper()
	var got *unstructured.Unstructured
	c.await(fmt.Sprintf("%s %s to have %s=%s", o.GetKind(), o.GetName(), strings.Join(path, "."), want), limit, func(ctx context.Context) error {
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

// remove deletes objects, in this order, and waits until they are gone.
func (c *cluster) remove(objects ...*unstructured.Unstructured) {
	c.t.Helper()
	for _, o := range objects {
		r, err := c.resource(o)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := r.Delete(c.context(), o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			c.t.Fatal(err)
		}
		c.await(fmt.Sprintf("%s %s to be gone", o.GetKind(), o.GetName()), 90*time.Second, func(ctx context.Context) error {
			switch got, err := c.get(ctx, o); {
			case apierrors.IsNotFound(err):
				return nil
			case err != nil:
				return err
			default:
				return fmt.Errorf("it has finalizers %v", got.GetFinalizers())
			}
		})
	}
}
