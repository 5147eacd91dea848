// Where a body ends. Decoders hold scalars only: what was consumed may be forgotten, however the bytes were cut.

/// What the bytes at a position are.
package enum BodyEvent: Equatable, Sendable {
    /// Payload. Go on behind it.
    case data(Range<Int>)
    /// No payload; everything up to `consumed` is used.
    case needMore(consumed: Int)
    /// The body ended at `consumed`.
    case end(consumed: Int)
    case malformed(Violation)
}

/// The body of a message, of any framing.
package struct BodyDecoder: Sendable {
    private enum State: Sendable {
        case complete
        case length(Int64)
        case chunked(ChunkedDecoder)
        case untilClose
    }

    private var state: State

    /// A message without a body.
    package init() { state = .complete }

    package init(_ framing: RequestFraming) {
        switch framing {
        case .none, .length(0): state = .complete
        case .length(let length): state = .length(length)
        case .chunked: state = .chunked(ChunkedDecoder())
        }
    }

    package init(_ framing: ResponseFraming) {
        switch framing {
        case .none, .length(0): state = .complete
        case .length(let length): state = .length(length)
        case .chunked: state = .chunked(ChunkedDecoder())
        case .untilClose: state = .untilClose
        }
    }

    @inline(__always)
    package var isComplete: Bool {
        if case .complete = state { return true }
        return false
    }

    /// Whether the end of the connection is the end of the body.
    package var endsWithConnection: Bool {
        if case .untilClose = state { return true }
        return false
    }

    /// Payload bytes that are still to come, where that is known.
    package var remaining: Int64? {
        switch state {
        case .complete: 0
        case .length(let length): length
        case .chunked, .untilClose: nil
        }
    }

    /// Looks at the bytes from `offset` on.
    package mutating func next(_ bytes: Span<UInt8>, at offset: Int) -> BodyEvent {
        guard offset < bytes.count else { return .needMore(consumed: offset) }
        switch state {
        case .complete: return .end(consumed: offset)
        case .length(let remaining):
            let n = Int(min(remaining, Int64(bytes.count - offset)))
            state = remaining == Int64(n) ? .complete : .length(remaining - Int64(n))
            return .data(offset..<(offset + n))
        case .chunked(var decoder):
            let event = decoder.next(bytes, at: offset)
            if case .end = event { state = .complete } else { state = .chunked(decoder) }
            return event
        case .untilClose: return .data(offset..<bytes.count)
        }
    }
}

/// The chunked coding (RFC 9112 §7.1). Extensions are checked and dropped; trailers are checked and dropped, as RFC 9110
/// §6.5.1 lets an intermediary do.
package struct ChunkedDecoder: Sendable {
    private enum State: UInt8, Sendable {
        case size, extensions, quoted, quotedPair, sizeLineFeed
        case data, dataReturn, dataLineFeed
        case trailerStart, trailerName, trailerValue, trailerLineFeed, lastLineFeed
        case done
    }

    private var state = State.size
    private var digits = 0
    private var size: Int64 = 0
    /// Bytes of the extensions of one chunk, and of all trailer lines.
    private var extraBytes = 0

    /// 15 digits reach 2^60; more, even zeros, only serve to overflow somebody's counter.
    private static let sizeDigitsMax = 15
    /// Nobody uses extensions; 4 KiB a chunk would already be a way to make us read without end.
    private static let extensionBytesMax = 256
    private static let trailerBytesMax = 8 << 10

    package init() {}

    package mutating func next(_ bytes: Span<UInt8>, at offset: Int) -> BodyEvent {
        var i = offset
        while i < bytes.count {
            let byte = bytes[i]
            switch state {
            case .size:
                if let value = hex(byte) {
                    digits += 1
                    guard digits <= Self.sizeDigitsMax else { return .malformed(Violation(.chunkSize, at: i)) }
                    size = size << 4 | Int64(value)
                } else if digits == 0 {
                    // RFC 9112 §7.1: a sign, a space or nothing at all is a size to lenient readers only.
                    return .malformed(Violation(.chunkSize, at: i))
                } else if byte == carriageReturn {
                    state = .sizeLineFeed
                } else if byte == UInt8(ascii: ";") {
                    state = .extensions
                    extraBytes = 0
                } else {
                    return .malformed(Violation(byte == lineFeed ? .lineEnding : .chunkSize, at: i))
                }
                i += 1
            case .extensions, .quoted, .quotedPair:
                if let violation = takeExtension(byte, at: i) { return .malformed(violation) }
                i += 1
            case .sizeLineFeed:
                guard byte == lineFeed else { return .malformed(Violation(.lineEnding, at: i)) }
                i += 1
                extraBytes = 0
                state = size == 0 ? .trailerStart : .data
            case .data:
                let n = Int(min(size, Int64(bytes.count - i)))
                size -= Int64(n)
                if size == 0 { state = .dataReturn }
                return .data(i..<(i + n))
            case .dataReturn:
                // RFC 9112 §7.1: a chunk longer than its size would hand its rest to the next reader as a chunk of its own.
                guard byte == carriageReturn else { return .malformed(Violation(.chunkEnd, at: i)) }
                i += 1
                state = .dataLineFeed
            case .dataLineFeed:
                guard byte == lineFeed else { return .malformed(Violation(.chunkEnd, at: i)) }
                i += 1
                state = .size
                digits = 0
                size = 0
            case .trailerStart:
                if byte == carriageReturn {
                    state = .lastLineFeed
                } else if Characters.token.contains(byte) {
                    state = .trailerName
                } else {
                    return .malformed(Violation(.trailerField, at: i))
                }
                if let violation = countTrailer(at: i) { return .malformed(violation) }
                i += 1
            case .trailerName:
                if byte == UInt8(ascii: ":") {
                    state = .trailerValue
                } else if !Characters.token.contains(byte) {
                    return .malformed(Violation(.trailerField, at: i))
                }
                if let violation = countTrailer(at: i) { return .malformed(violation) }
                i += 1
            case .trailerValue:
                if byte == carriageReturn {
                    state = .trailerLineFeed
                } else if !Characters.fieldValue.contains(byte) {
                    return .malformed(Violation(byte == lineFeed ? .lineEnding : .trailerField, at: i))
                }
                if let violation = countTrailer(at: i) { return .malformed(violation) }
                i += 1
            case .trailerLineFeed:
                guard byte == lineFeed else { return .malformed(Violation(.lineEnding, at: i)) }
                i += 1
                state = .trailerStart
            case .lastLineFeed:
                guard byte == lineFeed else { return .malformed(Violation(.lineEnding, at: i)) }
                state = .done
                return .end(consumed: i + 1)
            case .done: return .end(consumed: i)
            }
        }
        return .needMore(consumed: i)
    }

    private func hex(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x41 + 10
        case 0x61...0x66: byte - 0x61 + 10
        default: nil
        }
    }

    private mutating func countTrailer(at offset: Int) -> Violation? {
        extraBytes += 1
        return extraBytes > Self.trailerBytesMax ? Violation(.trailerBytes, at: offset) : nil
    }

    private mutating func takeExtension(_ byte: UInt8, at offset: Int) -> Violation? {
        extraBytes += 1
        guard extraBytes <= Self.extensionBytesMax else { return Violation(.chunkExtension, at: offset) }
        switch state {
        case .extensions:
            if byte == carriageReturn {
                state = .sizeLineFeed
            } else if byte == UInt8(ascii: "\"") {
                state = .quoted
            } else if !Characters.fieldValue.contains(byte) {
                // A bare LF here ends the line for some readers ("TERM.EXT" smuggling).
                return Violation(byte == lineFeed ? .lineEnding : .chunkExtension, at: offset)
            }
        case .quoted:
            if byte == UInt8(ascii: "\"") {
                state = .extensions
            } else if byte == UInt8(ascii: "\\") {
                state = .quotedPair
            } else if !Characters.fieldValue.contains(byte) {
                return Violation(.chunkExtension, at: offset)
            }
        case .quotedPair:
            guard Characters.fieldValue.contains(byte) else { return Violation(.chunkExtension, at: offset) }
            state = .quoted
        case .size, .sizeLineFeed, .data, .dataReturn, .dataLineFeed, .trailerStart, .trailerName, .trailerValue,
            .trailerLineFeed, .lastLineFeed, .done:
            break
        }
        return nil
    }
}
