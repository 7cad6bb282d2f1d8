// Package loomtest is for those who write tasks and transports: nodes that live
// in the test, and suites that check what Loom relies on.
//
// A node is a [Server]: an SSH and SFTP server in memory, reached through the
// real transport, so that a test runs what a real run does. [NewServer] makes
// one whose answers the test says:
//
//	func TestRestart(t *testing.T) {
//		srv := loomtest.NewServer(func(ctx context.Context, cmd string, in io.Reader, out, errw io.Writer) int {
//			fmt.Fprintln(errw, "Unit nginx.service not found.")
//			return 5
//		})
//		_, err := srv.Apply(t, Restart{Unit: "nginx"})
//		if e, ok := errors.AsType[*loom.ExitError](err); !ok || e.Code != 5 {
//			t.Errorf("Apply = %v, want exit status 5", err)
//		}
//		if got := srv.Commands(); !slices.Equal(got, []string{"sudo -u root -- systemctl restart nginx"}) {
//			t.Errorf("commands = %q", got)
//		}
//	}
//
// Its files are in memory too: WriteFile says what is there, ReadFile what the
// task has made of it. It works inside [testing/synctest], where a task that
// takes three hours is tested in a moment. What other users' files are (those
// of a session with Sudo) is asked by commands, which the handler sees.
//
// [Real] makes a node that really runs its commands, with this machine's shell
// in a directory of its own.
//
// A Server is a [loom.Dialer]: a whole [loom.Pool] can work on such nodes, and
// its Drop, Stall and Down do to them what happens to real ones.
//
// [TestTask] checks what every task owes Loom, and [TestConn] what every
// transport does. The stock tasks and transports pass the same suites.
package loomtest
