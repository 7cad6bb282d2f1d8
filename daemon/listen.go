package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

// knock is how often it is tried again to open a door that could not be opened.
const knock = 5 * time.Second

// A doors is all through which others reach the daemon.
type doors struct {
	server *api.Server
	config loom.APIConfig
	log    *slog.Logger
	given  []net.Listener // by the service manager (systemd.socket(5))
}

// openDoors returns the doors that the configuration asks for, with the socket in
// the state directory, which is open when it returns.
func openDoors(ctx context.Context, server *api.Server, config loom.APIConfig, state string, log *slog.Logger) (*doors, net.Listener) {
	d := &doors{server: server, config: config, log: log}
	var err error
	if d.given, err = activation.Listeners(); err != nil {
		log.Error("sockets of the service manager can't be used", "err", err)
	}
	d.given = slices.DeleteFunc(d.given, func(l net.Listener) bool { return l == nil })
	if server.Tokens, err = api.OpenTokens(state, log); err != nil {
		log.Error("tokens let nobody in", "err", err)
	}
	own := filepath.Join(state, api.SocketFile)
	l := d.take(func(a net.Addr) bool { return a.Network() == "unix" && a.String() == own })
	if l == nil {
		if l, err = api.Listen(ctx, state); err != nil {
			log.Error("commands can't reach this daemon", "err", err)
			return d, nil
		}
	}
	return d, l
}

// take returns the first listener of the service manager that fits, and nil if
// there is none.
func (d *doors) take(fits func(net.Addr) bool) net.Listener {
	i := slices.IndexFunc(d.given, func(l net.Listener) bool { return fits(l.Addr()) })
	if i < 0 {
		return nil
	}
	l := d.given[i]
	d.given = slices.Delete(d.given, i, i+1)
	return l
}

// serve answers those who come through a door, until ctx ends.
func (d *doors) serve(ctx context.Context, own net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if own != nil {
		wg.Go(func() {
			if err := d.server.Serve(ctx, own); err != nil && !errors.Is(err, context.Canceled) {
				d.log.Error("commands can't reach this daemon any more", "err", err)
			}
		})
	}
	for l := d.take(isUnix); l != nil; l = d.take(isUnix) {
		wg.Go(func() { d.keep(ctx, "socket", d.givenSocket(l)) })
	}
	if d.config.Socket.Path != "" {
		wg.Go(func() { d.keep(ctx, "socket", d.socket) })
	} else if d.config.Socket.Group != "" {
		d.closed(d.config.Problem("socket", errors.New("members of the group can't get into the state directory: say where else the socket is to be, such as path: "+api.GroupSocket)))
	}
	given := d.take(func(net.Addr) bool { return true })
	if given != nil || d.config.HTTP != "" {
		wg.Go(func() { d.network(ctx, given) })
	}
	for _, l := range d.given {
		d.log.Error("door stays closed: the service manager has given more than one address on the network", "address", l.Addr().String())
		_ = l.Close() // nobody has come yet
	}
}

func isUnix(a net.Addr) bool { return a.Network() == "unix" }

// keep opens a door, as soon as that is possible, and serves it until ctx ends.
func (d *doors) keep(ctx context.Context, name string, open func(context.Context) (*api.Door, error)) {
	for told := ""; ctx.Err() == nil; {
		door, err := open(ctx)
		if err == nil {
			d.log.Info("door open", "door", name, "address", door.Listener.Addr().String(), "tls", door.Certificate != nil)
			told = ""
			err = d.server.Open(ctx, door)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			d.closed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(knock):
		}
	}
}

// closed says why a door is not open.
func (d *doors) closed(err error) {
	if at, ok := errors.AsType[*loom.ManifestError](err); ok {
		d.log.Error("door stays closed", "file", place(at), "err", at.Err)
		return
	}
	d.log.Error("door stays closed", "err", err)
}

// socket opens the socket for others on this machine.
func (d *doors) socket(ctx context.Context) (*api.Door, error) {
	s := d.config.Socket
	l, err := api.ListenAt(ctx, s.Path, s.Group, s.Mode)
	if err != nil {
		return nil, d.config.Problem("socket", err)
	}
	return &api.Door{Listener: l, Group: s.Group, Role: d.role()}, nil
}

// givenSocket has the service manager's socket be that for others, once.
func (d *doors) givenSocket(l net.Listener) func(context.Context) (*api.Door, error) {
	s := d.config.Socket
	if s.Path == l.Addr().String() {
		d.config.Socket.Path = "" // this is it
	}
	return once(&api.Door{Listener: l, Group: s.Group, Role: d.role()})
}

func (d *doors) role() api.Role { return cmp.Or(api.Role(d.config.Socket.Role), api.RoleOperator) }

// once returns what opens a door that is there already, and can't be opened again.
func once(door *api.Door) func(context.Context) (*api.Door, error) {
	return func(ctx context.Context) (*api.Door, error) {
		if door == nil {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		opened := door
		door = nil
		return opened, nil
	}
}

// network opens the door to the network, or says why it must stay closed: once
// there is a token, as nobody could come in without one.
func (d *doors) network(ctx context.Context, given net.Listener) {
	if given != nil {
		defer given.Close() //nolint:errcheck // it is closed already, if it was served
	}
	if e := d.exposed(given); e != nil {
		d.closed(e)
		return
	}
	select {
	case <-d.server.Tokens.Usable():
	default:
		d.log.Warn("door opens once there is a token, since nobody could come in: make one with \"token create NAME --role viewer\"", "door", "http")
	}
	select {
	case <-d.server.Tokens.Usable():
	case <-ctx.Done():
		return
	}
	d.keep(ctx, "http", func(ctx context.Context) (*api.Door, error) { return d.http(ctx, given) })
}

// exposed returns why the door to the network must stay closed, or nil.
func (d *doors) exposed(given net.Listener) error {
	if given == nil {
		if e := d.config.Exposed(); e != nil {
			return e
		}
		return nil
	}
	if at, err := netip.ParseAddrPort(given.Addr().String()); d.config.TLS.Cert == "" && (err != nil || !at.Addr().Unmap().IsLoopback()) {
		return fmt.Errorf("the service manager's socket %s can be reached by others than this machine, and without TLS they can read every token: "+
			"give it a certificate (api: {http: ..., tls: {cert: FILE, key: FILE}}), or listen on 127.0.0.1", given.Addr())
	}
	return nil
}

// http opens the door to the network.
func (d *doors) http(ctx context.Context, given net.Listener) (*api.Door, error) {
	door := &api.Door{Listener: given, Hosts: d.config.Hosts}
	if host, _, err := net.SplitHostPort(d.config.HTTP); err == nil && host != "" {
		door.Hosts = append(slices.Clip(door.Hosts), host)
	}
	if t := d.config.TLS; t.Cert != "" {
		var err error
		if door.Certificate, err = api.LoadCertificate(t.Cert, t.Key, d.log); err != nil {
			return nil, d.config.Problem("tls", err)
		}
	}
	if given == nil {
		var err error
		if door.Listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", d.config.HTTP); err != nil {
			return nil, d.config.Problem("http", err)
		}
	}
	return door, nil
}

// sameDoors reports whether two configurations have the same doors.
func sameDoors(a, b loom.APIConfig) bool {
	return a.Listen == b.Listen && a.Socket == b.Socket && a.HTTP == b.HTTP && a.TLS == b.TLS && slices.Equal(a.Hosts, b.Hosts)
}
