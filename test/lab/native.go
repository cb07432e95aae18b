package main

import "errors"

type nativeMachine struct{ job *job }

func (m *nativeMachine) start() error       { return errors.New("native mode is not written yet") }
func (m *nativeMachine) wait() (int, error) { return exitBroken, nil }
func (m *nativeMachine) kill()              {}
func (m *nativeMachine) tearDown() error    { return nil }
func tearDownNative(*job) error             { return nil }
func nativeInit(*job) int                   { return exitBroken }
