// Where the frames of a WebSocket begin and end (RFC 6455 §5.2), for a tunnel that may have to put one of its own between
// two of them. Headers are read, a few bytes a frame; what the frames carry is skipped.

package struct FrameBorders: Sendable {
    /// Bytes of the current frame's payload that are still to come.
    private var payloadLeft: UInt64 = 0
    /// Bytes of the current frame's header that have come, and how many it has.
    private var headerCount = 0
    private var headerLength = 2
    /// Bytes of the length behind the first two.
    private var lengthCount = 0
    private var length: UInt64 = 0
    private var isClose = false

    /// Whether a close frame has passed: nothing may follow it (§5.5.1).
    package private(set) var hasClosed = false

    package init() {}

    /// Whether the next byte begins a frame.
    package var isAtBorder: Bool { payloadLeft == 0 && headerCount == 0 }

    /// Follows all of the bytes, or those up to the first border behind the first byte. Returns how many.
    @discardableResult
    package mutating func pass(_ bytes: Span<UInt8>, stopAtBorder: Bool = false) -> Int {
        var offset = 0
        while offset < bytes.count {
            if payloadLeft > 0 {
                let n = min(payloadLeft, UInt64(bytes.count - offset))
                payloadLeft -= n
                offset += Int(n)
            } else {
                takeHeader(bytes[offset])
                offset += 1
            }
            if stopAtBorder, isAtBorder { return offset }
        }
        return offset
    }

    private mutating func takeHeader(_ byte: UInt8) {
        switch headerCount {
        case 0: isClose = byte & 0x0f == 0x8
        case 1:
            let short = byte & 0x7f
            lengthCount = short == 126 ? 2 : short == 127 ? 8 : 0
            length = lengthCount == 0 ? UInt64(short) : 0
            headerLength = 2 + lengthCount + (byte & 0x80 != 0 ? 4 : 0)
        default: if headerCount < 2 + lengthCount { length = length << 8 | UInt64(byte) }
        }
        headerCount += 1
        guard headerCount >= 2, headerCount == headerLength else { return }
        headerCount = 0
        payloadLeft = length
        if isClose { hasClosed = true }
    }

    /// A close frame of a server that goes away: status 1001 (§7.4.1), unmasked.
    package static let goingAway: [UInt8] = [0x88, 0x02, 0x03, 0xe9]
}
