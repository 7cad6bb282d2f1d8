// Package shell runs commands in the POSIX shell at the other end of a pipe: a
// channel of an SSH connection, or a child of this process.
//
// What it promises, whatever the node's login shell is:
//
//   - The command line that starts the shell consists of letters, digits and
//     "/._ -" only, which every login shell reads the same way. Everything else
//     goes over standard input, as one function, so that a part of it is a
//     syntax error and not a shorter program.
//   - Nothing counts as started before the shell has printed a marker that
//     nobody can guess. What comes before it (noise of start-up files, messages
//     of the day) is dropped.
//   - The command runs in the process that the other side waits for, so that
//     its exit status and signal are exact.
//   - Beside it waits one watcher. If standard input ends while the command
//     runs, since the caller gave up or the connection broke, the watcher ends
//     the command with all its processes, on the node and by itself.
//   - A password goes to sudo's prompt, once, and nowhere else.
package shell
