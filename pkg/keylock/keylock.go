// Package keylock locks by name. It never waits: whoever meets a held key is told so, because the CSI spec
// wants a concurrent call on the same object answered (Aborted) rather than queued.
package keylock

import "sync"

// Set is a set of held keys. The zero value is ready for use.
type Set struct {
	mu   sync.Mutex
	held map[string]struct{}
}

// TryLock takes the key, and returns how to give it back; ok is false when someone else holds it.
func (s *Set) TryLock(key string) (unlock func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.held[key]; taken {
		return nil, false
	}
	if s.held == nil {
		s.held = make(map[string]struct{})
	}
	s.held[key] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, key)
	}, true
}
