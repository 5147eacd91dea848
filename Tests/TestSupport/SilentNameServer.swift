// A name server that takes every question and answers none.

import Glibc
import Primitives

package final class SilentNameServer {
    private let descriptor: Int32
    private let directory: TemporaryDirectory
    private let configuration: String

    /// An address of this machine that nobody else uses for it.
    private static let address = SocketAddress(ip: IPAddress("127.53.53.53") ?? .v4Loopback, port: 53)

    /// Why there can be none here; `nil` where there can.
    package static let refusal: String? = {
        do {
            let server = try SilentNameServer()
            let inside = try ChildProcess(server.program[0], Array(server.program.dropFirst()) + ["/bin/true"])
            return try inside.waitForExit() == 0 ? nil : "nothing runs with a name server of its own: \(inside.errors)"
        } catch {
            return "no name server on port 53: \(error)"
        }
    }()

    package init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        let raw = descriptor
        let bound = unsafe withSocketAddress(Self.address) { unsafe bind(raw, $0, $1) }
        let failure = bound == 0 ? nil : errno
        directory = try TemporaryDirectory()
        // One question, and a wait for its answer that is longer than any test.
        configuration = try directory.write(
            "nameserver \(Self.address.ip)\noptions timeout:30 attempts:1\n", to: "resolv.conf")
        if let failure { throw WireError.system("bind", errno: failure) }
    }

    deinit { close(descriptor) }

    /// What to put before a program, so that it asks this one.
    package var program: [String] {
        let mount = "mount --bind \(configuration) /etc/resolv.conf && exec \"$@\""
        return ["/usr/bin/env", "unshare", "-m", "sh", "-c", mount, "sh"]
    }
}
