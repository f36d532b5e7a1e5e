package netconn_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"mailstow/internal/netconn"
)

// listen accepts one connection and hands it to serve.
func listen(t *testing.T, serve func(net.Conn)) netconn.Endpoint {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			serve(conn)
		}
	}()
	return netconn.Endpoint{Addr: ln.Addr().String(), Security: netconn.Plain, Timeout: 200 * time.Millisecond}
}

func TestSilenceEndsARead(t *testing.T) {
	c, err := netconn.Dial(t.Context(), listen(t, func(net.Conn) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, netconn.ErrSilent) {
		t.Errorf("error = %v, want %v", err, netconn.ErrSilent)
	}
}

// A slow line is not silence: it takes as long as it takes.
func TestDripIsNotSilence(t *testing.T) {
	c, err := netconn.Dial(t.Context(), listen(t, func(conn net.Conn) {
		for range 8 {
			time.Sleep(50 * time.Millisecond)
			conn.Write([]byte("x"))
		}
		conn.Close()
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || len(b) != 8 {
		t.Errorf("got %q, %v", b, err)
	}
}

// A server that owes no answer may be silent while the disk is busy.
func TestNoAnswerAwaitedIsNotSilence(t *testing.T) {
	c, err := netconn.Dial(t.Context(), listen(t, func(conn net.Conn) {
		time.Sleep(500 * time.Millisecond)
		conn.Write([]byte("x"))
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Await(false)
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("error = %v", err)
	}
}

func TestAwaitingBeginsDuringARead(t *testing.T) {
	c, err := netconn.Dial(t.Context(), listen(t, func(net.Conn) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Await(false)
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	time.Sleep(50 * time.Millisecond)
	c.Await(true)
	select {
	case err := <-read:
		if !errors.Is(err, netconn.ErrSilent) {
			t.Errorf("error = %v, want %v", err, netconn.ErrSilent)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the read still waits")
	}
}

func TestCancellationEndsARead(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := listen(t, func(net.Conn) {})
	e.Timeout = time.Hour
	c, err := netconn.Dial(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("no error")
	}
}
