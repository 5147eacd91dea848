// A port of loopback that is nobody else's: as long as the object lives, no socket is given it by the system's choice, and
// whoever connects is refused until somebody listens there who is told its number.

import Glibc
package import Primitives

package final class HeldPort: Sendable {
    package let address: SocketAddress
    private let raw: Int32

    package init(on ip: IPAddress = .v4Loopback) throws {
        let raw = socket(
            ip.family == .v4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw WireError.system("socket", errno: errno) }
        Self.shareAddress(raw)
        guard unsafe withSocketAddress(SocketAddress(ip: ip, port: 0), { unsafe bind(raw, $0, $1) }) == 0 else {
            let number = errno
            close(raw)
            throw WireError.system("bind", errno: number)
        }
        // The port lies at the same place in an address of either family.
        var bound = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        _ = unsafe withUnsafeMutablePointer(to: &bound) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe getsockname(raw, $0, &length) }
        }
        self.raw = raw
        address = SocketAddress(ip: ip, port: UInt16(bigEndian: bound.sin6_port))
    }

    deinit { close(raw) }

    /// Lets a socket be bound beside others that say so too and do not listen.
    static func shareAddress(_ raw: Int32) {
        var on: Int32 = 1
        _ = unsafe setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    package var port: UInt16 { address.port }
    package var url: String { "http://\(address)" }
}
