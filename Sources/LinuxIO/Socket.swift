// Socket calls. Every socket here is non-blocking and closes on exec.

import CLinux
import Glibc
public import Primitives

/// Where a stream connects to.
public enum Endpoint: Hashable, Sendable, CustomStringConvertible {
    case tcp(SocketAddress)
    /// The path of a Unix socket, at most 107 bytes.
    case unix(String)

    public var description: String {
        switch self {
        case .tcp(let address): address.description
        case .unix(let path): "unix:\(path)"
        }
    }
}

/// A connection taken from a listening socket.
public struct Accepted: ~Copyable {
    public let descriptor: Descriptor
    public let peer: SocketAddress

    public consuming func take() -> Descriptor { descriptor }
}

/// A socket that listens. Shared by reference, because the thread that opened it is not the one that accepts.
public final class ListeningSocket: Sendable {
    public let descriptor: Descriptor
    /// The address in use, with the port that the system chose where 0 was asked for.
    public let address: SocketAddress

    /// Opens a listening socket.
    ///
    /// A second `SO_REUSEPORT` bind of a port in use by the same user succeeds silently, so another process on the port
    /// would go unnoticed. Therefore `probeFirst` binds once without it.
    public init(_ address: SocketAddress, reusePort: Bool, probeFirst: Bool = true) throws(SystemError) {
        if reusePort && probeFirst && address.port != 0 {
            _ = try Self.open(address, reusePort: false, listening: false)
        }
        descriptor = try Self.open(address, reusePort: reusePort, listening: true)
        self.address = Socket.localAddress(descriptor) ?? address
    }

    /// Takes over a socket that another process has opened and still holds. `nil` where it is none that listens.
    public init?(adopting raw: Int32) {
        descriptor = Descriptor(adopting: raw)
        var listens: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard unsafe getsockopt(raw, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0, listens != 0,
            let address = Socket.localAddress(descriptor)
        else { return nil }
        _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
        self.address = address
    }

    private static func open(
        _ address: SocketAddress, reusePort: Bool, listening: Bool
    ) throws(SystemError) -> Descriptor {
        let socket = try Socket.make(family: address.ip.family)
        try Socket.set(socket, SOL_SOCKET, SO_REUSEADDR, 1)
        if reusePort { try Socket.set(socket, SOL_SOCKET, SO_REUSEPORT, 1) }
        if address.ip == .v6Any { try Socket.set(socket, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 0) }
        let bound = unsafe Socket.withAddress(address) { unsafe bind(socket.raw, $0, $1) }
        guard bound == 0 else { throw .last("bind") }
        if listening {
            guard listen(socket.raw, backlog) == 0 else { throw .last("listen") }
        }
        return socket
    }

    /// Closes this process's hold on it: it lives on where another process holds it too, and ends where none does.
    public func letGo() { descriptor.closeEarly() }

    /// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
    private static let backlog: Int32 = 4096

    /// At most so many connections can wait.
    public static var queueMax: Int { Int(backlog) + 1 }

    /// Refuses connections from now on, whoever else still holds the socket. What waits in the queue is reset.
    public func stopListening() { _ = shutdown(descriptor.raw, Int32(SHUT_RD)) }

    /// Lets no new connection begin from now on: the first packet of each (SYN) is dropped, as if it were lost on the
    /// way. Those whose handshake is under way come through. Where the kernel has no socket filters nothing happens, and
    /// this is false.
    public func holdNewcomers() -> Bool { sluice_hold_newcomers(descriptor.raw) == 0 }

    /// Whether connections wait to be accepted.
    public var hasWaiting: Bool {
        var state = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&state, 1, 0) > 0 && state.revents & Int16(POLLIN) != 0
    }

    /// Takes one waiting connection, or `nil` where there is none.
    public func accept() throws(SystemError) -> Accepted? {
        while true {
            var storage = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let raw = unsafe withUnsafeMutablePointer(to: &storage) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    unsafe accept4(
                        descriptor.raw, address, &length, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue))
                }
            }
            if raw >= 0 {
                let peer = Socket.address(storage) ?? SocketAddress(ip: .v4Any, port: 0)
                return Accepted(descriptor: Descriptor(adopting: raw), peer: peer)
            }
            switch errno {
            case EAGAIN: return nil
            // The connection died in the queue, or the network said something of it (accept(2)): take the next.
            case EINTR, ECONNABORTED, EPROTO, EPERM, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH,
                ENETUNREACH:
                continue
            default: throw .last("accept4")
            }
        }
    }
}

public enum Socket {
    static func make(family: IPAddress.Family) throws(SystemError) -> Descriptor {
        try make(domain: family == .v4 ? AF_INET : AF_INET6)
    }

    private static func make(domain: Int32) throws(SystemError) -> Descriptor {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let raw = socket(domain, kind, 0)
        guard raw >= 0 else { throw .last("socket") }
        return Descriptor(adopting: raw)
    }

    static func set(
        _ socket: borrowing Descriptor, _ level: Int32, _ option: Int32, _ value: Int32
    ) throws(SystemError) {
        var value = value
        let result = unsafe setsockopt(socket.raw, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
        guard result == 0 else { throw .last("setsockopt") }
    }

    /// Sends small segments at once (RFC 896's delay off): a proxy writes whole messages.
    public static func setNoDelay(_ socket: borrowing Descriptor) {
        try? set(socket, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    }

    /// Makes `close` send a reset instead of keeping what the peer no longer wants.
    public static func setAbortOnClose(_ socket: borrowing Descriptor) {
        var value = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(socket.raw, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    /// Starts a connection. It is made when the socket turns writable and `pendingError` is nil.
    public static func connect(to endpoint: Endpoint) throws(SystemError) -> Descriptor {
        switch endpoint {
        case .tcp(let address):
            let socket = try make(family: address.ip.family)
            setNoDelay(socket)
            let result = unsafe withAddress(address) { target, length in
                retryingInterrupts { unsafe Glibc.connect(socket.raw, target, length) }
            }
            guard result == 0 || errno == EINPROGRESS else { throw .last("connect") }
            return socket
        case .unix(let path):
            let socket = try make(domain: AF_UNIX)
            guard var address = unixAddress(path) else { throw .invalidAddress }
            let result = unsafe withUnsafePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe Glibc.connect(socket.raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            guard result == 0 || errno == EINPROGRESS else { throw .last("connect") }
            return socket
        }
    }

    private static func unixAddress(_ path: String) -> sockaddr_un? {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: address.sun_path), !bytes.contains(0) else {
            return nil
        }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        return address
    }

    /// The error that a connection attempt or an asynchronous failure left behind (SO_ERROR).
    public static func pendingError(_ socket: borrowing Descriptor) -> SystemError? {
        var number: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard unsafe getsockopt(socket.raw, SOL_SOCKET, SO_ERROR, &number, &length) == 0 else {
            return .last("getsockopt")
        }
        return number == 0 ? nil : SystemError("connect", number: number)
    }

    /// Reads once, at most `room` bytes, behind what the buffer holds. Without room it reads nothing and says `bytes(0)`:
    /// recv(2) would return 0 there too, which looks like the end of the stream.
    @inline(__always)
    public static func receive(
        _ socket: borrowing Descriptor, into buffer: inout ByteBuffer, room: Int
    ) -> IOOutcome {
        guard room > 0 else { return .bytes(0) }
        var result = 0
        _ = unsafe buffer.write(room: room) { target in
            result = retryingInterrupts { unsafe sluice_receive(socket.raw, target, UInt(room)) }
            return max(0, result)
        }
        return outcome(result, "recv", zeroIsEnd: true)
    }

    /// Writes once. Fewer bytes than given means that the kernel's buffer is full.
    @inline(__always)
    public static func send(_ socket: borrowing Descriptor, _ bytes: Span<UInt8>) -> IOOutcome {
        let raw = socket.raw
        let result = unsafe bytes.withUnsafeBufferPointer { source in
            retryingInterrupts { unsafe sluice_send(raw, source.baseAddress, UInt(source.count)) }
        }
        return outcome(result, "send", zeroIsEnd: false)
    }

    /// Writes two pieces with one call, so that a head and its body leave together without being copied together.
    @inline(__always)
    public static func send(
        _ socket: borrowing Descriptor, _ first: Span<UInt8>, _ second: Span<UInt8>
    ) -> IOOutcome {
        let raw = socket.raw
        let result = unsafe first.withUnsafeBufferPointer { first in
            unsafe second.withUnsafeBufferPointer { second in
                var pieces: (iovec, iovec) = unsafe (
                    iovec(iov_base: UnsafeMutableRawPointer(mutating: first.baseAddress), iov_len: first.count),
                    iovec(iov_base: UnsafeMutableRawPointer(mutating: second.baseAddress), iov_len: second.count)
                )
                return unsafe withUnsafeMutablePointer(to: &pieces) { pointer in
                    unsafe pointer.withMemoryRebound(to: iovec.self, capacity: 2) { vector in
                        var message = unsafe msghdr()
                        unsafe message.msg_iov = vector
                        unsafe message.msg_iovlen = 2
                        return retryingInterrupts {
                            unsafe sendmsg(raw, &message, Int32(MSG_NOSIGNAL))
                        }
                    }
                }
            }
        }
        return outcome(result, "sendmsg", zeroIsEnd: false)
    }

    /// Bytes that the peer has not acknowledged yet (SIOCOUTQ, tcp(7)).
    public static func unacknowledged(_ socket: borrowing Descriptor) -> Int {
        var count: Int32 = 0
        guard unsafe ioctl(socket.raw, UInt(TIOCOUTQ), &count) == 0 else { return 0 }
        return Int(count)
    }

    /// Tells the peer that nothing more will be sent.
    public static func shutdownWriting(_ socket: borrowing Descriptor) {
        _ = shutdown(socket.raw, Int32(SHUT_WR))
    }

    public static func localAddress(_ socket: borrowing Descriptor) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = unsafe withUnsafeMutablePointer(to: &storage) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe getsockname(socket.raw, $0, &length)
            }
        }
        return result == 0 ? address(storage) : nil
    }

    /// Runs `body` with the address in the kernel's form.
    static func withAddress<Result>(
        _ address: SocketAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        switch address.ip.family {
        case .v4:
            var form = sockaddr_in()
            form.sin_family = sa_family_t(AF_INET)
            form.sin_port = address.port.bigEndian
            form.sin_addr.s_addr = UInt32(truncatingIfNeeded: address.ip.low).bigEndian
            return unsafe withUnsafePointer(to: &form) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
        case .v6:
            var form = sockaddr_in6()
            form.sin6_family = sa_family_t(AF_INET6)
            form.sin6_port = address.port.bigEndian
            unsafe withUnsafeMutableBytes(of: &form.sin6_addr) {
                unsafe $0.storeBytes(of: address.ip.high.bigEndian, toByteOffset: 0, as: UInt64.self)
                unsafe $0.storeBytes(of: address.ip.low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            return unsafe withUnsafePointer(to: &form) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
                }
            }
        }
    }

    /// The address that the kernel's form holds; `nil` for families other than IPv4 and IPv6.
    static func address(_ storage: sockaddr_storage) -> SocketAddress? {
        unsafe withUnsafeBytes(of: storage) { bytes in
            switch Int32(storage.ss_family) {
            case AF_INET:
                let port = unsafe UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
                let bits = unsafe UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
                return SocketAddress(ip: IPAddress(v4: bits), port: port)
            case AF_INET6:
                let port = unsafe UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
                let high = unsafe UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                let low = unsafe UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
                return SocketAddress(ip: IPAddress(v6High: high, low: low), port: port)
            default: return nil
            }
        }
    }
}
