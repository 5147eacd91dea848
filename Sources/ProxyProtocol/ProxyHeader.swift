// The PROXY protocol, versions 1 and 2 (haproxy.org/download/2.9/doc/proxy-protocol.txt): what a balancer that passes on
// bytes writes before the client's first byte, so that the server learns who the client is.
//
// A value without I/O: the bytes so far go in, a verdict comes out. It never guesses: whoever calls has decided by the
// connection's peer that a header must come (§2: a receiver "must not try to guess whether the header is present", or
// any client could write one).

package import Primitives

package enum ProxyHeader {
    /// Who a header says is connected.
    package enum Source: Hashable, Sendable {
        /// The client, with its port there.
        case client(SocketAddress)
        /// The connection itself: the balancer speaks for itself (`LOCAL`, a health check), or the client has no
        /// Internet address (`UNKNOWN`, a Unix socket).
        case connection
    }

    /// The rule that a header breaks.
    package enum Violation: String, Hashable, Sendable {
        case noHeader = "no PROXY header"
        case lineTooLong = "a line of more than 107 bytes"
        case malformedLine = "a line that is neither TCP4, TCP6 nor UNKNOWN with two addresses and two ports"
        case unknownVersion = "a version other than 1 and 2"
        case unknownCommand = "a command other than LOCAL and PROXY"
        case unknownFamily = "an unknown address family or transport"
        case datagram = "a datagram's header on a connection of bytes"
        case addressesCut = "a length that does not hold the addresses"
        case extensionsCut = "an extension that does not end where the header does"
        case tooLong = "more bytes of extensions than are read"
    }

    package enum Progress: Hashable, Sendable {
        /// More bytes decide.
        case needMore
        /// The client's own bytes begin at `length`.
        case complete(Source, length: Int)
        case malformed(Violation)
    }

    /// §2.1: the longest line is 107 bytes, its line end included.
    private static let lineBytesMax = 107
    /// Version 2 announces up to 65,535 bytes. Addresses take 216 at the most; the extensions behind them are a few
    /// names, and a client's certificate at the largest.
    package static let headerBytesMax = 8 << 10

    private static let prefix = Array("PROXY ".utf8)
    private static let tcp4 = Array("TCP4".utf8)
    private static let tcp6 = Array("TCP6".utf8)
    private static let unknown = Array("UNKNOWN".utf8)

    /// Reads a header from the first bytes of a connection.
    package static func parse(_ bytes: Span<UInt8>) -> Progress {
        guard !bytes.isEmpty else { return .needMore }
        return bytes[0] == 0x0d ? parseBinary(bytes) : parseLine(bytes)
    }

    // MARK: Version 1

    private static func parseLine(_ bytes: Span<UInt8>) -> Progress {
        for i in 0..<min(prefix.count, bytes.count) where bytes[i] != prefix[i] { return .malformed(.noHeader) }
        var end = prefix.count
        while end < bytes.count, bytes[end] != 0x0d {
            // A bare LF ends no line here, or two readers see two lines.
            if bytes[end] == 0x0a { return .malformed(.malformedLine) }
            end += 1
            if end > lineBytesMax - 2 { return .malformed(.lineTooLong) }
        }
        guard end + 1 < bytes.count else { return .needMore }
        guard bytes[end + 1] == 0x0a else { return .malformed(.malformedLine) }
        guard let source = readLine(bytes.extracting(prefix.count..<end)) else { return .malformed(.malformedLine) }
        return .complete(source, length: end + 2)
    }

    private static func readLine(_ line: Span<UInt8>) -> Source? {
        var fields = Fields(line)
        let family: IPAddress.Family
        switch fields.next() {
        case .some(let range) where equals(line, range, tcp4): family = .v4
        case .some(let range) where equals(line, range, tcp6): family = .v6
        // §2.1: what follows UNKNOWN must be ignored.
        case .some(let range) where equals(line, range, unknown): return .connection
        case .some, .none: return nil
        }
        guard let source = fields.next().flatMap({ address(line, $0, family) }),
            fields.next().flatMap({ address(line, $0, family) }) != nil,
            let port = fields.next().flatMap({ port(line, $0) }),
            fields.next().flatMap({ self.port(line, $0) }) != nil,
            fields.next() == nil
        else { return nil }
        return .client(SocketAddress(ip: source.unmapped, port: port))
    }

    /// The parts between single spaces.
    private struct Fields {
        private let spaces: [Int]
        private let end: Int
        private var index = 0

        init(_ line: Span<UInt8>) {
            var spaces: [Int] = []
            for i in line.indices where line[i] == 0x20 { spaces.append(i) }
            self.spaces = spaces
            end = line.count
        }

        mutating func next() -> Range<Int>? {
            guard index <= spaces.count else { return nil }
            let start = index == 0 ? 0 : spaces[index - 1] + 1
            let stop = index < spaces.count ? spaces[index] : end
            index += 1
            return start..<stop
        }
    }

    private static func address(_ line: Span<UInt8>, _ range: Range<Int>, _ family: IPAddress.Family) -> IPAddress? {
        guard let address = IPAddress(ascii: line.extracting(range)), address.family == family else { return nil }
        return address
    }

    /// §2.1: decimal, 0 to 65535, without leading zeros.
    private static func port(_ line: Span<UInt8>, _ range: Range<Int>) -> UInt16? {
        guard range.count >= 1, range.count <= 5, range.count == 1 || line[range.lowerBound] != 0x30 else { return nil }
        var value = 0
        for i in range {
            guard line[i] >= 0x30, line[i] <= 0x39 else { return nil }
            value = value * 10 + Int(line[i] - 0x30)
        }
        return UInt16(exactly: value)
    }

    private static func equals(_ line: Span<UInt8>, _ range: Range<Int>, _ word: [UInt8]) -> Bool {
        guard range.count == word.count else { return false }
        for i in word.indices where line[range.lowerBound + i] != word[i] { return false }
        return true
    }

    // MARK: Version 2

    private static let signature: [UInt8] = [
        0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
    ]
    private static let fixedBytes = 16

    private static func parseBinary(_ bytes: Span<UInt8>) -> Progress {
        for i in 0..<min(signature.count, bytes.count) where bytes[i] != signature[i] { return .malformed(.noHeader) }
        guard bytes.count >= fixedBytes else { return .needMore }
        guard bytes[12] >> 4 == 2 else { return .malformed(.unknownVersion) }
        let command = bytes[12] & 0xf
        guard command <= 1 else { return .malformed(.unknownCommand) }
        let length = fixedBytes + (Int(bytes[14]) << 8 | Int(bytes[15]))
        guard length <= headerBytesMax else { return .malformed(.tooLong) }
        // §2.2: what a LOCAL header says of family and addresses is to be ignored, whatever it is.
        guard command == 1 else { return bytes.count < length ? .needMore : .complete(.connection, length: length) }
        let protocols = Protocols(rawValue: bytes[13])
        switch protocols {
        case .unspecified, .tcp4, .tcp6, .unix: break
        // §2.2: a receiver may refuse what it does not support. A balancer that takes this connection of bytes for
        // datagrams, or says so of another one, is not what the operator takes it for.
        case .udp4, .udp6, .unixDatagram: return .malformed(.datagram)
        // §2.2: all other values are reserved, and a receiver must drop them.
        case .none: return .malformed(.unknownFamily)
        }
        let addressesEnd = fixedBytes + (protocols?.addressBytes ?? 0)
        guard length >= addressesEnd else { return .malformed(.addressesCut) }
        // Without a family nobody knows where the extensions begin.
        if protocols != .unspecified {
            switch skipExtensions(bytes, from: addressesEnd, to: length) {
            case .some(true): break
            case .some(false): return .malformed(.extensionsCut)
            case .none: return .needMore
            }
        }
        guard bytes.count >= length else { return .needMore }
        switch protocols {
        case .tcp4:
            let ip = IPAddress(v4: UInt32(truncatingIfNeeded: number(bytes, 16, 4)))
            return .complete(.client(SocketAddress(ip: ip, port: port(bytes, at: 24))), length: length)
        case .tcp6:
            let ip = IPAddress(v6High: number(bytes, 16, 8), low: number(bytes, 24, 8)).unmapped
            return .complete(.client(SocketAddress(ip: ip, port: port(bytes, at: 48))), length: length)
        case .unspecified, .udp4, .udp6, .unix, .unixDatagram, .none:
            return .complete(.connection, length: length)
        }
    }

    /// §2.2: the values of the 14th byte that mean something: address family, and transport.
    private enum Protocols: UInt8 {
        case unspecified = 0x00
        case tcp4 = 0x11
        case udp4 = 0x12
        case tcp6 = 0x21
        case udp6 = 0x22
        case unix = 0x31
        case unixDatagram = 0x32

        /// Source and destination address, then the two ports where there are ports.
        var addressBytes: Int {
            switch self {
            case .unspecified: 0
            case .tcp4, .udp4: 12
            case .tcp6, .udp6: 36
            case .unix, .unixDatagram: 216
            }
        }
    }

    /// §2.2.7: each extension is a type, a length of two bytes and as many bytes; they are skipped, but the last must end
    /// where the header does, or the reader of another implementation reads on in the client's bytes. `nil` where more
    /// bytes decide.
    private static func skipExtensions(_ bytes: Span<UInt8>, from start: Int, to end: Int) -> Bool? {
        var i = start
        while i < end {
            guard end - i >= 3 else { return false }
            guard i + 3 <= bytes.count else { return nil }
            i += 3 + (Int(bytes[i + 1]) << 8 | Int(bytes[i + 2]))
        }
        return i == end
    }

    private static func port(_ bytes: Span<UInt8>, at start: Int) -> UInt16 {
        UInt16(truncatingIfNeeded: number(bytes, start, 2))
    }

    /// A number in network order.
    private static func number(_ bytes: Span<UInt8>, _ start: Int, _ count: Int) -> UInt64 {
        var value: UInt64 = 0
        for i in start..<(start + count) { value = value << 8 | UInt64(bytes[i]) }
        return value
    }
}
