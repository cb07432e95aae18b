package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// command runs an administrator's command.
func command(ctx context.Context, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(cmd.Environ(), "LVM_SUPPRESS_FD_WARNINGS=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out.String())
	}
	return nil
}

// volumes asks LVM itself, without the driver.
func volumes(ctx context.Context) ([]lvm.LV, error) {
	dir, err := os.MkdirTemp("", "lvmsnap-demo-lvm-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	env, err := lvm.WriteConfig(ctx, hostexec.Host{}, dir)
	if err != nil {
		return nil, err
	}
	return lvm.NewClient(lvm.Exec{Runner: hostexec.Host{}, Env: env}, group).LVs(ctx)
}

// picture draws what lvs shows as a tree: pool, volume, snapshots, restores.
func picture(ctx context.Context) error {
	lvs, err := volumes(ctx)
	if err != nil {
		return err
	}
	fmt.Println()
	say("what `lvs %s` says:", group)
	say("  %-44s %-10s %8s %7s", "", "Attr", "Size", "Data%")
	for _, pool := range lvs {
		if pool.Attr.Type() == lvm.TypeThinPool {
			line(pool, 0)
			branch(lvs, pool.Name, "", 1)
		}
	}
	return nil
}

// branch draws the volumes of a pool that were made from origin; a volume whose origin is gone hangs on the pool.
func branch(lvs []lvm.LV, pool, origin string, depth int) {
	for _, lv := range lvs {
		parent := lv.Origin
		if !slices.ContainsFunc(lvs, func(o lvm.LV) bool { return o.Name == parent }) {
			parent = ""
		}
		if lv.Pool != pool || parent != origin {
			continue
		}
		line(lv, depth)
		branch(lvs, pool, lv.Name, depth+1)
	}
}

func line(lv lvm.LV, depth int) {
	used := "-"
	if lv.DataPercent >= 0 {
		used = fmt.Sprintf("%.2f", lv.DataPercent)
	}
	say("  %-44s %-10s %4d MiB %7s", strings.Repeat("   ", depth)+"└─ "+label(lv), lv.Attr, lv.SizeBytes>>20, used)
}

// label is the CSI name, which the driver keeps in a tag.
func label(lv lvm.LV) string {
	kind := map[string]string{"csi-v-": "volume ", "csi-s-": "snapshot "}
	for _, tag := range lv.Tags {
		if name, ok := strings.CutPrefix(tag, "lvmsnap.name="); ok {
			return kind[lv.Name[:6]] + name
		}
	}
	return "thin pool " + lv.Name
}

// empty checks that only the pool is left.
func empty(ctx context.Context) error {
	if err := picture(ctx); err != nil {
		return err
	}
	lvs, err := volumes(ctx)
	if err != nil {
		return err
	}
	if len(lvs) != 1 {
		return fmt.Errorf("%d logical volumes are left, want only the pool", len(lvs))
	}
	return nil
}
