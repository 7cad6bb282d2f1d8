// Package api is how others reach the daemon: HTTP under /api/v1 over a unix socket
// in the state directory, and through other doors where the configuration wants
// them, and the Client that speaks it.
//
// The [Server] shows what the store remembers and takes orders for the daemon. The
// document at /openapi.json is made from its handlers. /healthz says that the
// process answers, /readyz that it can work. Who connects to the socket must be the
// daemon's own user, or root: the kernel says who it is. Others have a [Token], with
// a [Role]; each operation names the least role that may ask for it.
//
// The [Client] is a loom.Store, so that a command works on the daemon's memory as
// it would on its own: to read it, and to record a run of its own in it. That last
// part, /api/v1/ledger, is between a program and its own daemon: it is not in the
// document and may change with any version.
//
// Requests that fail are answered with a problem (RFC 9457), whose detail is a
// sentence for a person. Its type is one of these, and for a Client matches the
// error beside it:
//
//	urn:loom:not-found    404  loom.ErrNotFound
//	urn:loom:fenced       409  loom.ErrFenced
//	urn:loom:busy         409  loom.ErrBusy
//	urn:loom:shutdown     503  loom.ErrShutdown
//	urn:loom:store-down   503  loom.ErrStoreDown
//	urn:loom:exists       409  fs.ErrExist
//	urn:loom:denied       403  fs.ErrPermission
//	urn:loom:unauthorized 401  fs.ErrPermission
//	urn:loom:unreachable  502  loom.ErrUnreachable
//	urn:loom:unsupported  501  errors.ErrUnsupported
//	urn:loom:invalid      422
//	urn:loom:key-used     422
//	urn:loom:misdirected  421
//	urn:loom:too-many     429
//
// Lists that can be long come in pages: an object with items and, if there may be
// more, next, which is a parameter of the next request.
package api
