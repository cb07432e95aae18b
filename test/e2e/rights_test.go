//go:build lab

package e2e_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// auditPolicy records who did what, for rights to be compared with.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, userGroups: ["system:serviceaccounts"]}]
`

// used are the rights that an account has made use of: "verb group/resource".
func (c *cluster) used(account string) map[string]bool {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "audit.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		var event struct {
			Verb      string
			User      struct{ Username string }
			ObjectRef struct{ APIGroup, Resource, Subresource string }
		}
		// The last line may still be on its way.
		if json.Unmarshal([]byte(line), &event) != nil || event.User.Username != account || event.ObjectRef.Resource == "" {
			continue
		}
		resource := event.ObjectRef.Resource
		if event.ObjectRef.Subresource != "" {
			resource += "/" + event.ObjectRef.Subresource
		}
		out[event.Verb+" "+event.ObjectRef.APIGroup+"/"+resource] = true
	}
	return out
}

// logUnused says which of the rights that the manifests give were not made use of by any flow.
func (c *cluster) logUnused(objects []*unstructured.Unstructured, accounts map[string]string) {
	c.t.Helper()
	for _, o := range objects {
		account, ok := accounts[o.GetName()]
		if !ok || o.GetKind() != "ClusterRole" && o.GetKind() != "Role" {
			continue
		}
		role := new(rbacv1.ClusterRole)
		c.typed(o, role)
		used := c.used(account)
		unused := map[string]bool{}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					if right := verb + " " + rule.APIGroups[0] + "/" + resource; !used[right] {
						unused[right] = true
					}
				}
			}
		}
		c.t.Logf("%s %s, not made use of: %s", o.GetKind(), o.GetName(), strings.Join(slices.Sorted(maps.Keys(unused)), ", "))
	}
}
