// A port that answers no connection attempt: the queue of its listening socket is full, so the kernel drops what comes.

import Glibc
package import Primitives

package final class SilentListener: Sendable {
    package let address: SocketAddress
    private let descriptors: [Int32]

    package init() throws {
        let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw WireError.system("socket", errno: errno) }
        var all = [raw]
        let bound = unsafe withSocketAddress(SocketAddress(ip: .v4Loopback, port: 0)) { unsafe bind(raw, $0, $1) }
        var name = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let named = unsafe withUnsafeMutablePointer(to: &name) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe getsockname(raw, $0, &length) }
        }
        guard bound == 0, named == 0, listen(raw, 0) == 0 else { throw WireError.system("listen", errno: errno) }
        let address = SocketAddress(ip: .v4Loopback, port: UInt16(bigEndian: name.sin_port))
        // A queue of length 0 holds one connection; one more attempt stays unanswered, as all later ones do.
        for _ in 0..<3 {
            let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
            let client = socket(AF_INET, kind, 0)
            _ = unsafe withSocketAddress(address) { unsafe connect(client, $0, $1) }
            all.append(client)
        }
        self.address = address
        descriptors = all
    }

    deinit { for descriptor in descriptors { close(descriptor) } }

    package var url: String { "http://\(address)" }
}
