//go:build lab

package dm

import (
	"errors"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// What the pool is asked, and what it is not: nothing but the transaction id changes.
func TestLabRepairs(t *testing.T) {
	g, c := labGroup(t)
	pool := g.Name + "/" + g.ThinPool
	labtest.Run(t, "lvcreate", "-V", "64m", "--thinpool", g.ThinPool, "-n", "csi-v-a", g.Name)
	labtest.Run(t, "lvcreate", "-s", "-n", "csi-s-a", g.Name+"/csi-v-a")
	before, err := c.PoolStatus(t.Context(), g.Name, g.ThinPool)
	if err != nil {
		t.Fatal(err)
	}
	ids := labtest.Run(t, "lvs", "--noheadings", "-o", "thin_id", "--select", "thin_id>=0", g.Name)
	for id := range uint32(10) {
		has, err := c.HasThin(t.Context(), g.Name, g.ThinPool, id)
		if want := id == 1 || id == 2; err != nil || has != want {
			t.Errorf("device %d: %t, %v, want %t (LVM has %s)", id, has, err, want, ids)
		}
	}
	if after, err := c.PoolStatus(t.Context(), g.Name, g.ThinPool); err != nil || after != before {
		t.Errorf("the questions changed the pool from %+v to %+v, %v", before, after, err)
	}
	if _, err := c.HasThin(t.Context(), g.Name, gone, 1); !errors.Is(err, ErrNoDevice) {
		t.Errorf("a pool that is not there: %v", err)
	}
	if err := c.DeleteThin(t.Context(), g.Name, g.ThinPool, 9); err != nil {
		t.Errorf("deletion of what is not there: %v", err)
	}
	// A jam, made and undone: see docs/adr/0014.
	id := before.TransactionID
	if err := c.SetTransactionID(t.Context(), g.Name, g.ThinPool, id+1, id+2); err == nil {
		t.Error("another transaction than the pool's was counted")
	}
	if err := c.SetTransactionID(t.Context(), g.Name, g.ThinPool, id, id-1); err != nil {
		t.Fatal(err)
	}
	if err := c.SetTransactionID(t.Context(), g.Name, g.ThinPool, id-1, id); err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, "lvcreate", "-s", "-n", "csi-s-b", g.Name+"/csi-v-a")
	labtest.Run(t, "lvchange", "-an", pool)
}

func TestLabResume(t *testing.T) {
	g, c := labGroup(t)
	labtest.Run(t, "lvcreate", "-V", "64m", "--thinpool", g.ThinPool, "-n", "csi-v-a", g.Name)
	name := DeviceName(g.Name, "csi-v-a")
	labtest.Run(t, "dmsetup", "suspend", name)
	labtest.Run(t, "dmsetup", "load", name, "--table", "0 8 zero") // as a command may have done that died
	if err := c.ClearTable(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds it resumed
		if err := c.Resume(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if i, err := c.Info(t.Context(), g.Name, "csi-v-a"); err != nil || i.Suspended {
			t.Errorf("%+v, %v", i, err)
		}
	}
	if table := labtest.Run(t, "dmsetup", "table", name); !strings.Contains(table, " thin ") {
		t.Errorf("the table is %s", table)
	}
	if err := c.Resume(t.Context(), name+"x"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("no device: %v", err)
	}
	devices, err := c.Devices(t.Context(), g.Name)
	if err != nil {
		t.Fatal(err)
	}
	uuid := strings.ReplaceAll(strings.TrimSpace(labtest.Run(t, "lvs", "--noheadings", "-o", "lv_uuid", g.Name+"/csi-v-a")), "-", "")
	found := false
	for _, d := range devices {
		if lv, layer := d.LV(); lv == uuid {
			found = true
			if d.Name != name || layer != "" {
				t.Errorf("%+v", d)
			}
		}
	}
	if !found {
		t.Errorf("no device has the UUID %s: %+v", uuid, devices)
	}
}
