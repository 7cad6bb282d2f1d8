// Package notify tells people and programs what Loom's runs came to: by webhook,
// mail, chat, a command, or a ping that is missed when it does not come.
//
// News are told once for each transition: when a job begins to fail, not each time
// it fails, and when it is well again. What is to be sent is on the disk before
// it is tried, and is tried until it was delivered or too much time has passed, also
// across restarts; so it may be delivered twice, under the same ID, but is not lost.
//
// A [Notifier] is handed the events of a scheduler and the manifests. It never
// keeps those waiting who hand it something.
package notify
