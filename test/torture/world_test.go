//go:build lab

package torture_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	mib        = int64(1) << 20
	volumeSize = 32 * mib
	// patience is for what has to go on by itself.
	patience = 30 * time.Second
)

// world is a volume group, the driver's engine on it as in production, and the killer.
type world struct {
	t      *testing.T
	vg     *labtest.Group
	env    []string
	locks  string
	killer *killer // of the call's LVM
	second *killer // of the recovery's
	kernel *dm.Control

	engine *storage.Engine
	host   *watchedHost
	shell  *lvm.Shell
	group  *lvm.Group
	reader *lvm.DiskReader
	dir    string

	writers []*writer
}

// watchedHost knows the last program that was started with pipes, which is LVM: its shell, or without one, a command.
type watchedHost struct {
	hostexec.Host
	last atomic.Int64
	next atomic.Pointer[func(pid int)] // called with the next one, before it runs
}

func (h *watchedHost) Start(c hostexec.Command) (*hostexec.Process, error) {
	var next *func(pid int)
	if !slices.Contains(c.Args, "vgmknodes") { // it changes nothing in the group
		next = h.next.Swap(nil)
	}
	if next != nil {
		c.Args = append([]string{"-c", `kill -STOP $$; exec "$@"`, "sh", c.Name}, c.Args...)
		c.Name = "sh"
	}
	p, err := h.Host.Start(c)
	if err != nil {
		return nil, err
	}
	h.last.Store(int64(p.PID))
	if next != nil {
		(*next)(p.PID)
	}
	return p, nil
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, vg: labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "1g"}), kernel: &dm.Control{}, dir: t.TempDir()}
	t.Cleanup(func() { w.ok(w.kernel.Close()) })
	var err error
	w.env, err = lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	w.ok(err)
	w.locks, err = lvm.LockingDir(t.Context(), hostexec.Host{}, w.env)
	w.ok(err)
	w.killer, w.second = newKiller(t), newKiller(t)
	w.open()
	t.Cleanup(w.close)
	t.Cleanup(w.atTheEnd)
	return w
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// open starts an engine, as a start of the driver does.
func (w *world) open() {
	w.t.Helper()
	w.host = &watchedHost{}
	w.shell = lvm.NewShell(w.host, w.env)
	w.reader = &lvm.DiskReader{}
	var err error
	w.group, err = lvm.NewGroup(w.vg.Name, lvm.GroupOptions{Executor: w.shell, Reader: w.reader, Locks: lvm.FileLocks{Dir: w.locks}})
	w.ok(err)
	w.engine, err = storage.New(w.t.Context(), storage.Options{
		Driver: "csi.lvmsnap.io", NodeID: "node-1", Groups: []*lvm.Group{w.group}, Kernel: w.kernel,
		Fill: storage.FillOptions{Wait: patience}, // a call that is watched has all of its commands
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin:  thin.New(thin.Options{Kernel: w.kernel, DataReservePercent: 5, MetadataReservePercent: 10}),
			storage.TypeThick: thick.New(w.kernel),
		},
	})
	w.ok(err)
}

func (w *world) close() {
	w.t.Helper()
	w.engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(w.shell.Close(ctx), w.reader.Close()); err != nil {
		w.t.Error(err)
	}
}

func (w *world) reopen() {
	w.t.Helper()
	w.close()
	w.open()
}

// whileKilled runs op with LVM's shell watched, which is killed before the nth call that counts; not killed means that the op
// makes fewer.
func (w *world) whileKilled(o order, op func() error) (outcome, error) {
	w.t.Helper()
	// The shell is there, and has read all that it reads once.
	w.ok(w.group.Do(w.t.Context(), "warm", patience, func(ctx context.Context, c *lvm.Client) error {
		_, err := c.VG(ctx)
		return err
	}))
	o.PID = int(w.host.last.Load())
	w.ok(w.killer.arm(o))
	err := op()
	out, failed := w.killer.result()
	w.ok(failed)
	return out, err
}

// whileTwiceKilled kills the LVM of op, and then the first command of the recovery from that which changes the group.
func (w *world) whileTwiceKilled(first, o order, op func() error) (outcome, error) {
	w.t.Helper()
	began := false
	var failed error
	next := func(pid int) {
		began = true
		if failed = w.isStopped(pid); failed == nil {
			o.PID = pid
			failed = w.second.arm(o)
		}
		_ = unix.Kill(pid, unix.SIGCONT)
	}
	w.host.next.Store(&next)
	out, err := w.whileKilled(first, op)
	w.host.next.Store(nil)
	w.ok(failed)
	if !out.Killed || !began {
		w.t.Fatalf("killed: %+v, the recovery ran LVM: %t", out, began)
	}
	out, failed = w.second.result()
	w.ok(failed)
	return out, err
}

// isStopped waits until a process has stopped itself.
func (w *world) isStopped(pid int) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return err
		}
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "T") {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not stop: %s", pid, stat)
		}
	}
}

// persist calls as the sidecars do, for as long as the answer is not final.
func (w *world) persist(what string, call func() error) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := call()
		if err == nil {
			return
		}
		if !errors.Is(err, storage.ErrPending) || time.Now().After(deadline) {
			w.t.Fatalf("%s: %v", what, err)
		}
	}
}

func (w *world) lvOf(id string) string {
	w.t.Helper()
	h, err := storage.ParseHandle(id)
	w.ok(err)
	return h.LV
}

// expect checks that the group has these LVs beside the pool, that LVM and the pool agree, and that nothing is suspended or left
// over in the kernel.
func (w *world) expect(lvs ...string) {
	w.t.Helper()
	m, err := w.group.View(w.t.Context(), patience)
	w.ok(err)
	got, ids, uuids := []string{}, map[uint32]bool{}, map[string]bool{}
	var pool lvm.LV
	for _, lv := range m.LVs {
		uuids[strings.ReplaceAll(lv.UUID, "-", "")] = true
		if lv.Name == w.vg.ThinPool {
			pool = lv
			continue
		}
		got = append(got, lv.Name)
		if lv.Pool != "" {
			ids[lv.ThinID] = true
		}
	}
	slices.Sort(lvs)
	if !slices.Equal(got, lvs) {
		w.t.Errorf("LVs: %v, want %v", got, lvs)
	}
	st, err := w.kernel.PoolStatus(w.t.Context(), w.vg.Name, w.vg.ThinPool)
	w.ok(err)
	if st.TransactionID != pool.TransactionID || st.Mode != dm.PoolReadWrite || st.NeedsCheck {
		w.t.Errorf("the pool is at transaction %d, LVM at %d; %+v", st.TransactionID, pool.TransactionID, st)
	}
	for id := range uint32(12) {
		has, err := w.kernel.HasThin(w.t.Context(), w.vg.Name, w.vg.ThinPool, id)
		w.ok(err)
		if has != ids[id] {
			w.t.Errorf("device %d: in the pool %t, in LVM %t", id, has, ids[id])
		}
	}
	devices, err := w.kernel.Devices(w.t.Context(), w.vg.Name)
	w.ok(err)
	for _, d := range devices {
		uuid, layer := d.LV()
		hidden := strings.HasSuffix(layer, "-tdata") || strings.HasSuffix(layer, "-tmeta")
		if d.Suspended || !hidden && !uuids[uuid] {
			w.t.Errorf("device %+v is suspended or nobody's", d)
		}
	}
}

// volume makes a volume with an ext4, mounted, and a writer on it.
func (w *world) volume(name string, class storage.Class) (storage.Volume, *writer) {
	w.t.Helper()
	var v storage.Volume
	w.persist("create "+name, func() (err error) {
		v, err = w.engine.CreateVolume(w.t.Context(), storage.VolumeSpec{
			Name: name, RequiredBytes: volumeSize, Access: storage.AccessMount, FSType: "ext4", Class: class,
		})
		return err
	})
	v, err := w.engine.Activate(w.t.Context(), v.ID)
	w.ok(err)
	labtest.Run(w.t, "mkfs.ext4", "-q", v.DevicePath)
	dir := filepath.Join(w.dir, name)
	w.ok(os.Mkdir(dir, 0o755))
	w.ok(unix.Mount(v.DevicePath, dir, "ext4", 0, ""))
	w.t.Cleanup(func() { w.ok(unix.Unmount(dir, 0)) })
	return v, w.write(dir)
}

const (
	blockBytes = 4096
	blocks     = 16
	writerFile = "written"
)

// writer overwrites the blocks of a file with the number of its pass, one after the other, past the page cache.
type writer struct {
	begun, done atomic.Uint64 // passes
	rests       atomic.Bool
}

// writesOnly has the other writers rest: the machine has one CPU, and nobody looks at what they write.
func (w *world) writesOnly(on *writer) {
	for _, other := range w.writers {
		other.rests.Store(other != on)
	}
}

func (w *world) write(dir string) *writer {
	w.t.Helper()
	path := filepath.Join(dir, writerFile)
	w.ok(os.WriteFile(path, make([]byte, blocks*blockBytes), 0o600))
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT|unix.O_SYNC, 0)
	w.ok(err)
	out := &writer{}
	w.writers = append(w.writers, out)
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		defer f.Close()
		buf := aligned()
		for pass := uint64(1); ; {
			select {
			case <-stop:
				return
			default:
			}
			if out.rests.Load() {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			began := time.Now()
			out.begun.Store(pass)
			for i := range int64(blocks) {
				for at := 0; at < blockBytes; at += 8 {
					binary.LittleEndian.PutUint64(buf[at:], pass)
				}
				if _, err := f.WriteAt(buf, i*blockBytes); err != nil {
					w.t.Errorf("the writer on %s: %v", dir, err)
					return
				}
			}
			out.done.Store(pass)
			pass++
			time.Sleep(max(5*time.Millisecond, min(time.Since(began), 50*time.Millisecond))) // one CPU is for all
		}
	})
	w.t.Cleanup(func() { close(stop); running.Wait() })
	return out
}

func aligned() []byte {
	buf := make([]byte, 2*blockBytes)
	skip := -int(uintptr(unsafe.Pointer(&buf[0]))) & (blockBytes - 1)
	return buf[skip : skip+blockBytes]
}

// goesOn waits until the writer has made two more passes.
func (w *world) goesOn(writer *writer) {
	w.t.Helper()
	from := writer.done.Load()
	for deadline := time.Now().Add(patience); writer.done.Load() < from+2; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("the writer hangs\n%s", labtest.Run(w.t, "dmsetup", "info", "-c"))
		}
	}
}

// moment is what a device's file system shows of the writer's file, read without changing anything.
func (w *world) moment(lv string) []byte {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.dir, "mount")
	w.ok(err)
	w.ok(unix.Mount(w.vg.Device(lv), dir, "ext4", unix.MS_RDONLY, "noload"))
	got, err := os.ReadFile(filepath.Join(dir, writerFile))
	w.ok(errors.Join(err, unix.Unmount(dir, 0), os.Remove(dir)))
	return got
}

// snapshotMoment activates a snapshot for as long as it takes to read it.
func (w *world) snapshotMoment(lv string, class storage.Class) []byte {
	w.t.Helper()
	if class.Type == storage.TypeThin {
		w.ok(w.group.Do(w.t.Context(), "read", patience, func(ctx context.Context, c *lvm.Client) error { return c.Activate(ctx, lv) }))
		defer func() {
			w.ok(w.group.Do(w.t.Context(), "read", patience, func(ctx context.Context, c *lvm.Client) error { return c.Deactivate(ctx, lv) }))
		}()
	}
	return w.moment(lv)
}

// isOneMoment checks that the blocks were written in one order, and when: no earlier than pass from and no later than pass to.
func isOneMoment(content []byte, from, to uint64) error {
	if len(content) != blocks*blockBytes {
		return fmt.Errorf("the file has %d bytes", len(content))
	}
	var passes []uint64
	for i := range blocks {
		block := content[i*blockBytes : (i+1)*blockBytes]
		if !bytes.Equal(block[8:], block[:blockBytes-8]) {
			return fmt.Errorf("block %d is torn", i)
		}
		passes = append(passes, binary.LittleEndian.Uint64(block))
	}
	for i, p := range passes {
		if i > 0 && p > passes[i-1] || p+1 < passes[0] {
			return fmt.Errorf("not of one moment: passes %v", passes)
		}
	}
	if passes[blocks-1] < from || passes[0] > to {
		return fmt.Errorf("passes %v, and the moment was from pass %d to pass %d", passes, from, to)
	}
	return nil
}
