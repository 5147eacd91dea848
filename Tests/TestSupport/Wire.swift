// A raw, blocking connection with a time limit: what a test sends and receives is exactly what is on the wire.
//
// Written apart from the HTTP codec under test, so that both would have to be wrong in the same way.

import Glibc
import LinuxIO
package import Primitives

/// What went wrong on a connection of a test.
package enum WireError: Error, CustomStringConvertible {
    case system(String, errno: Int32)
    case timedOut
    case reset
    case ended(after: Int)
    case noHTTP(String)

    package var description: String {
        switch self {
        case .system(let call, let number): "\(call) fails with error \(number)"
        case .timedOut: "nothing arrived in time"
        case .reset: "the connection was reset"
        case .ended(let count): "the connection ended in the middle, \(count) bytes in"
        case .noHTTP(let text): "no HTTP: \(text)"
        }
    }
}

/// A message as it was on the wire.
package struct WireMessage: Sendable {
    package var startLine: String
    /// In order, names as written.
    package var fields: [(name: String, value: String)]
    /// The head's bytes, the empty line included.
    package var head: String
    /// Without the framing of chunks.
    package var body: [UInt8] = []
    /// The chunks one by one, where it was chunked.
    package var chunks: [[UInt8]] = []
    package var trailers = ""

    package var status: Int { Int(startLine.split(separator: " ").dropFirst().first ?? "") ?? 0 }
    package var method: String { String(startLine.split(separator: " ").first ?? "") }
    package var target: String { String(startLine.split(separator: " ").dropFirst().first ?? "") }
    package var text: String { String(decoding: body, as: UTF8.self) }

    package func values(_ name: String) -> [String] {
        fields.filter { $0.name.lowercased() == name.lowercased() }.map(\.value)
    }

    /// The value where there is exactly one such field.
    package func value(_ name: String) -> String? {
        let all = values(name)
        return all.count == 1 ? all[0] : nil
    }
}

package final class Wire: @unchecked Sendable {
    private let raw: Int32
    private var buffer: [UInt8] = []
    private var scratch = [UInt8](repeating: 0, count: 65_536)
    private var position = 0
    /// Called with all bytes as they arrive.
    package var received: ((ArraySlice<UInt8>) -> Void)?

    /// So long a test waits for anything before it fails.
    package static let patience = 20

    /// Owns the descriptor.
    init(adopting raw: Int32) {
        self.raw = raw
        var limit = timeval(tv_sec: Self.patience, tv_usec: 0)
        _ = unsafe setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        _ = unsafe setsockopt(raw, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var on: Int32 = 1
        _ = unsafe setsockopt(raw, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit { Glibc.close(raw) }

    /// - Parameters:
    ///   - source: the client's own address; the system's choice by default.
    ///   - receiveBuffer: bytes that the kernel keeps for a slow reader.
    package static func connect(
        to target: SocketAddress, from source: IPAddress? = nil, receiveBuffer: Int32? = nil
    ) throws -> Wire {
        let raw = socket(
            target.ip.family == .v4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw WireError.system("socket", errno: errno) }
        let wire = Wire(adopting: raw)
        if var size = receiveBuffer {
            _ = unsafe setsockopt(raw, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        if let source {
            let bound = unsafe withSocketAddress(SocketAddress(ip: source, port: 0)) { unsafe bind(raw, $0, $1) }
            guard bound == 0 else { throw WireError.system("bind", errno: errno) }
        }
        let result = unsafe withSocketAddress(target) { unsafe Glibc.connect(raw, $0, $1) }
        guard result == 0 else { throw WireError.system("connect", errno: errno) }
        return wire
    }

    // MARK: Sending

    package func send(_ text: String) throws { try send(Array(text.utf8)) }

    package func send(_ bytes: [UInt8]) throws {
        var offset = 0
        while offset < bytes.count {
            let n = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.send(raw, $0.baseAddress! + offset, $0.count - offset, Int32(MSG_NOSIGNAL))
            }
            if n < 0 {
                if errno == EINTR { continue }
                throw Self.failure("send")
            }
            offset += n
        }
    }

    private static func failure(_ call: String) -> WireError {
        switch errno {
        case EAGAIN: .timedOut
        case ECONNRESET, EPIPE: .reset
        default: .system(call, errno: errno)
        }
    }

    package func endSending() { _ = shutdown(raw, Int32(SHUT_WR)) }

    /// Ends both directions; a thread that waits here wakes.
    package func close() { _ = shutdown(raw, Int32(SHUT_RDWR)) }

    /// What is unread, or unsent, is thrown away with a reset when the object goes.
    package func resetOnClose() {
        var value = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(raw, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    // MARK: Receiving

    /// Reads once; the bytes are in `scratch`. 0 at the end.
    private func receive() throws -> Int {
        while true {
            let n = unsafe recv(raw, &scratch, scratch.count, 0)
            if n < 0 {
                if errno == EINTR { continue }
                throw Self.failure("recv")
            }
            if n > 0 { received?(scratch[..<n]) }
            return n
        }
    }

    /// Returns false at the end.
    private func fill() throws -> Bool {
        if position > 0 {
            buffer.removeFirst(position)
            position = 0
        }
        let n = try receive()
        buffer += scratch[..<n]
        return n > 0
    }

    private var available: Int { buffer.count - position }

    /// A line without its end; `nil` where the connection ends before its first byte.
    package func readLine() throws -> String? {
        var scanned = 0
        while true {
            if let end = buffer[(position + scanned)...].firstIndex(of: 10) {
                var line = buffer[position..<end]
                position = end + 1
                if line.last == 13 { line.removeLast() }
                return String(decoding: line, as: UTF8.self)
            }
            scanned = available
            if try !fill() {
                if scanned == 0 { return nil }
                throw WireError.ended(after: scanned)
            }
        }
    }

    package func read(_ count: Int) throws -> [UInt8] {
        while available < count { if try !fill() { throw WireError.ended(after: available) } }
        defer { position += count }
        return Array(buffer[position..<(position + count)])
    }

    /// Reads bytes and forgets them, handing them on piece by piece.
    package func stream(_ count: Int, _ piece: (ArraySlice<UInt8>) throws -> Void) throws {
        var left = count
        if available > 0 {
            let first = try read(min(available, left))
            try piece(first[...])
            left -= first.count
        }
        while left > scratch.count {
            let n = try receive()
            if n == 0 { throw WireError.ended(after: count - left) }
            try piece(scratch[..<n])
            left -= n
        }
        if left > 0 { try piece(try read(left)[...]) }
    }

    /// All that comes until the peer ends its side. A reset is an error.
    package func readToEnd() throws -> [UInt8] {
        while try fill() {}
        defer { position = buffer.count }
        return Array(buffer[position...])
    }

    /// Whether the peer ends the connection, by a close or a reset, without another byte.
    package func endsHere() throws -> Bool {
        if available > 0 { return false }
        do {
            return try !fill()
        } catch WireError.reset {
            return true
        }
    }

    /// The next head; `nil` where the connection ends before it.
    package func readHead() throws -> WireMessage? {
        guard let first = try readLine() else { return nil }
        var message = WireMessage(startLine: first, fields: [], head: first + "\r\n")
        while true {
            guard let line = try readLine() else { throw WireError.ended(after: message.head.utf8.count) }
            message.head += line + "\r\n"
            if line.isEmpty { return message }
            guard let colon = line.firstIndex(of: ":") else { throw WireError.noHTTP(line) }
            let value = line[line.index(after: colon)...].drop { $0 == " " }
            message.fields.append((String(line[..<colon]), String(value)))
        }
    }

    /// The next request with its body; `nil` where the connection ends before it.
    package func readRequest() throws -> WireMessage? {
        guard var message = try readHead() else { return nil }
        try readBody(&message, untilClose: false)
        return message
    }

    /// The next response with its body, framed as RFC 9112 §6.3 says. Interim responses are returned like others.
    package func readResponse(to method: String = "GET") throws -> WireMessage {
        guard var message = try readHead() else { throw WireError.ended(after: 0) }
        guard message.startLine.hasPrefix("HTTP/1.") else { throw WireError.noHTTP(message.startLine) }
        let status = message.status
        if method == "HEAD" || status < 200 || status == 204 || status == 304 { return message }
        try readBody(&message, untilClose: true)
        return message
    }

    private func readBody(_ message: inout WireMessage, untilClose: Bool) throws {
        if let coding = message.value("Transfer-Encoding") {
            guard coding == "chunked" else { throw WireError.noHTTP("Transfer-Encoding: \(coding)") }
            try readChunks(&message)
        } else if let text = message.value("Content-Length") {
            guard let length = Int(text) else { throw WireError.noHTTP("Content-Length: \(text)") }
            message.body = try read(length)
        } else if untilClose {
            message.body = try readToEnd()
        }
    }

    private func readChunks(_ message: inout WireMessage) throws {
        while true {
            guard let line = try readLine(), let size = Int(line.prefix { $0 != ";" }, radix: 16) else {
                throw WireError.noHTTP("a chunk without its size")
            }
            if size == 0 { break }
            let chunk = try read(size)
            message.chunks.append(chunk)
            message.body += chunk
            guard try read(2) == [13, 10] else { throw WireError.noHTTP("a chunk without its end") }
        }
        while let line = try readLine(), !line.isEmpty { message.trailers += line + "\r\n" }
    }
}

/// Calls `body` with the system's form of an address.
func withSocketAddress<R>(_ address: SocketAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    switch address.ip.family {
    case .v4:
        var form = sockaddr_in()
        form.sin_family = sa_family_t(AF_INET)
        form.sin_port = address.port.bigEndian
        form.sin_addr.s_addr = UInt32(truncatingIfNeeded: address.ip.low).bigEndian
        return unsafe withUnsafeBytes(of: &form) {
            unsafe body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
        }
    case .v6:
        var form = sockaddr_in6()
        form.sin6_family = sa_family_t(AF_INET6)
        form.sin6_port = address.port.bigEndian
        unsafe withUnsafeMutableBytes(of: &form.sin6_addr) { bytes in
            for i in 0..<8 {
                unsafe bytes[i] = UInt8(truncatingIfNeeded: address.ip.high >> UInt64(56 - 8 * i))
                unsafe bytes[8 + i] = UInt8(truncatingIfNeeded: address.ip.low >> UInt64(56 - 8 * i))
            }
        }
        return unsafe withUnsafeBytes(of: &form) {
            unsafe body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
        }
    }
}
