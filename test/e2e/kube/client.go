package kube

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

const (
	apiLimit     = 3 * time.Minute  // for the API server to start
	arrivalLimit = 30 * time.Second // for what an object depends on
	requestLimit = 2 * time.Minute
)

// Client is an administrator's access to the API. What fails, fails its test.
type Client struct {
	*kubernetes.Clientset
	t        *testing.T
	dynamic  dynamic.Interface
	mapper   *restmapper.DeferredDiscoveryRESTMapper
	patience time.Duration
}

// Connect waits until the API is ready. Patience is how long objects are waited for.
func Connect(t *testing.T, config *rest.Config, patience time.Duration) *Client {
	t.Helper()
	config.QPS, config.Burst = 100, 200
	c := &Client{t: t, patience: patience}
	var err error
	if c.Clientset, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery.NewDiscoveryClientForConfigOrDie(config)))
	c.Await("the API to be ready", apiLimit, func(ctx context.Context) error {
		return c.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	return c
}

// In is the client for a part of the test.
func (c *Client) In(t *testing.T) *Client {
	part := *c
	part.t = t
	return &part
}

// Patient is the client with another patience.
func (c *Client) Patient(patience time.Duration) *Client {
	other := *c
	other.patience = patience
	return &other
}

// Context is for one request.
func (c *Client) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	c.t.Cleanup(cancel)
	return ctx
}

// Await asks until there is no error.
func (c *Client) Await(what string, limit time.Duration, ask func(context.Context) error) {
	c.t.Helper()
	Await(c.t, what, limit, ask)
}

// Await asks until there is no error.
func Await(t *testing.T, what string, limit time.Duration, ask func(context.Context) error) {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var before error // the last one may say no more than that the time was up
	for {
		err := ask(ctx)
		if err == nil {
			t.Logf("%s: %.1f s", what, time.Since(begin).Seconds())
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s for %s: %v; before that: %v", limit, what, err, before)
		case <-tick.C:
			before = err
		}
	}
}

// Mapping is the resource that objects like this one are.
func (c *Client) Mapping(o *unstructured.Unstructured) (*meta.RESTMapping, error) {
	gvk := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil { // it may be newer than what was discovered
		c.mapper.Reset()
		mapping, err = c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	return mapping, err
}

// Resource is where objects like this one live.
func (c *Client) Resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	mapping, err := c.Mapping(o)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return c.dynamic.Resource(mapping.Resource), nil
	}
	namespace := o.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return c.dynamic.Resource(mapping.Resource).Namespace(namespace), nil
}

// CRDs applies external-snapshotter's own, from its module.
func (c *Client) CRDs() {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(Environment(c.t, "E2E_CRDS"), "snapshot.storage.k8s.io_*.yaml"))
	if err != nil || len(files) == 0 {
		c.t.Fatalf("no CRDs in $E2E_CRDS: %v", err)
	}
	for _, f := range files {
		for _, o := range File(c.t, f) {
			c.Apply(o)
			c.AwaitCondition(o, "Established")
		}
	}
}

// Apply is `kubectl apply --server-side --validate=strict`. The kind of an object may still be on its way, and so may the account
// of a pod.
func (c *Client) Apply(objects ...*unstructured.Unstructured) {
	c.t.Helper()
	for _, o := range objects {
		var err error
		for deadline := time.Now().Add(arrivalLimit); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			if err = c.apply(o, metav1.PatchOptions{}); err == nil || apierrors.IsInvalid(err) {
				break
			}
		}
		if err != nil {
			c.t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// DryRun is Apply with --dry-run=server.
func (c *Client) DryRun(o *unstructured.Unstructured) error {
	return c.apply(o, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
}

// apply is a patch, because the client's own Apply does not ask for strict validation.
func (c *Client) apply(o *unstructured.Unstructured, options metav1.PatchOptions) error {
	r, err := c.Resource(o)
	if err != nil {
		return err
	}
	text, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	options.FieldManager, options.FieldValidation = "e2e", metav1.FieldValidationStrict
	_, err = r.Patch(c.Context(), o.GetName(), types.ApplyPatchType, text, options)
	return err
}

// Get is the object as it is now.
func (c *Client) Get(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	r, err := c.Resource(o)
	if err != nil {
		return nil, err
	}
	return r.Get(ctx, o.GetName(), metav1.GetOptions{})
}

// Must is the object as it is now.
func (c *Client) Must(o *unstructured.Unstructured) *unstructured.Unstructured {
	c.t.Helper()
	got, err := c.Get(c.Context(), o)
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

// Patch is `kubectl patch --type=merge`.
func (c *Client) Patch(o *unstructured.Unstructured, patch string) {
	c.t.Helper()
	r, err := c.Resource(o)
	if err == nil {
		_, err = r.Patch(c.Context(), o.GetName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// AwaitField waits until a field has a value, and returns the object.
func (c *Client) AwaitField(o *unstructured.Unstructured, want string, path ...string) *unstructured.Unstructured {
	c.t.Helper()
	var got *unstructured.Unstructured
	c.Await(fmt.Sprintf("%s %s to have %s=%s", o.GetKind(), o.GetName(), strings.Join(path, "."), want), c.patience, func(ctx context.Context) error {
		var err error
		if got, err = c.Get(ctx, o); err != nil {
			return err
		}
		if value := Field(got, path...); value != want {
			return fmt.Errorf("it is %q; its status: %v", value, got.Object["status"])
		}
		return nil
	})
	return got
}

// AwaitCondition waits until a condition is true.
func (c *Client) AwaitCondition(o *unstructured.Unstructured, condition string) {
	c.t.Helper()
	c.Await(fmt.Sprintf("%s %s to be %s", o.GetKind(), o.GetName(), condition), c.patience, func(ctx context.Context) error {
		got, err := c.Get(ctx, o)
		if err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(got.Object, "status", "conditions")
		for _, item := range conditions {
			if m, _ := item.(map[string]any); m["type"] == condition && m["status"] == string(metav1.ConditionTrue) {
				return nil
			}
		}
		return fmt.Errorf("its status: %v", got.Object["status"])
	})
}

// Delete does not wait for the object to be gone, and forgives that it is gone.
func (c *Client) Delete(o *unstructured.Unstructured) {
	c.t.Helper()
	background := metav1.DeletePropagationBackground
	r, err := c.Resource(o)
	if err == nil {
		err = r.Delete(c.Context(), o.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
}

// Remove is `kubectl delete`: the objects, in this order, and each is waited for.
func (c *Client) Remove(objects ...*unstructured.Unstructured) {
	c.t.Helper()
	for _, o := range objects {
		c.Delete(o)
		c.Await(fmt.Sprintf("%s %s to be gone", o.GetKind(), o.GetName()), c.patience, func(ctx context.Context) error {
			switch got, err := c.Get(ctx, o); {
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
