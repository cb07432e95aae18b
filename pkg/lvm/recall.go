package lvm

// memory is what was read last of a group, and how many changes had begun or ended by then.
type memory struct {
	metadata Metadata
	changes  uint64
}

// Recall is what was last read of the group, if no command of this driver's has changed anything since: for those who look while
// the disks do not answer (ErrStuck). Nobody else can commit anything to a disk that hangs (docs/adr/0026).
func (g *Group) Recall() (Metadata, bool) {
	if g.client.reader == nil {
		return Metadata{}, false
	}
	m := g.client.reader.memory.Load()
	if m == nil || m.changes != g.client.reader.changes.Load() {
		return Metadata{}, false
	}
	return m.metadata, true
}
