// What systemd is told of a service of the types `notify` and `notify-reload` (sd_notify(3)): datagrams of lines to the
// socket that NOTIFY_SOCKET names. Without one nothing is said.

import LinuxIO
package import Primitives

package struct ServiceManager: Sendable {
    private let socket: String?

    package init(environment: [String: String]) { socket = environment["NOTIFY_SOCKET"] }

    package func ready(status: String) { say("READY=1\nSTATUS=\(status)") }
    package func stopping() { say("STOPPING=1") }
    package func reloading(at now: MonotonicTime) { say("RELOADING=1\nMONOTONIC_USEC=\(now.nanoseconds / 1_000)") }
    /// Another process is the service from here on.
    package func main(is id: Int32) { say("MAINPID=\(id)") }
    package func status(_ text: String) { say("STATUS=\(text)") }

    private func say(_ text: String) {
        if let socket { Socket.sendDatagram(text, to: socket) }
    }
}
