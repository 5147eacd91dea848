// The chunked transfer coding (RFC 9112 §7.1), read strictly: a decoder that guesses where a chunk ends lets a request
// hide in a body (the chunk-extension and bare-LF smugglings of 2024 and 2025 lived on such guesses).
//
// All state is a handful of scalars, so the caller may discard every byte it has been told about, and what is held is
// bounded by nothing that the peer sends. Payload is reported as ranges and never copied. Extensions are dropped
// (§7.1.1: a recipient ignores those it does not know); trailer fields are checked like header fields, and their bytes
// are told apart in `trailer` for who wants to pass them on. They are never merged into the header, which would be a way
// around every check there (RFC 9110 §6.5.1).

/// What a decoder found next. Offsets are into the span that was given.
package enum BodyEvent: Equatable, Sendable {
    /// Payload. Go on behind it.
    case data(Range<Int>)
    /// All bytes before `consumed` are dealt with, and these are all that were given.
    case needMore(consumed: Int)
    /// The body ends before offset `consumed`; what follows belongs to the next message.
    case end(consumed: Int)
    /// Neither this body nor anything behind it can be trusted.
    case malformed(Violation)
}

package struct ChunkedDecoder: Sendable {
    private enum State: UInt8 {
        /// In the digits of a chunk size.
        case size
        /// In white space behind the digits, which only a semicolon may follow.
        case blank
        /// In an extension.
        case chunkExtension
        /// Behind the CR of a size line.
        case sizeLineFeed
        case data
        /// Behind the data of a chunk.
        case dataCarriageReturn
        case dataLineFeed
        /// At the beginning of a trailer line, or of the empty one.
        case trailerStart
        case trailerName
        case trailerValue
        case trailerLineFeed
        /// Behind the CR of the empty line that ends the body.
        case lastLineFeed
        case complete

        var isTrailer: Bool {
            switch self {
            case .trailerStart, .trailerName, .trailerValue, .trailerLineFeed: true
            case .size, .blank, .chunkExtension, .sizeLineFeed, .data, .dataCarriageReturn, .dataLineFeed,
                .lastLineFeed, .complete:
                false
            }
        }
    }

    private var state = State.size
    private var digits: UInt8 = 0
    private var extensionBytes: UInt16 = 0
    /// Of the chunk: its size while that is read, then what has not come yet.
    private var chunk: UInt64 = 0
    private var trailerBytesLeft: Int
    private var trailersLeft: Int
    private var trailerStart: Int32 = 0
    private var trailerEnd: Int32 = 0

    /// `limits.headerBytes` and `limits.headerCount` bound the trailer section as they do the header.
    package init(limits: HeadLimits) {
        // The last LF is read where it is not counted.
        trailerBytesLeft = limits.fieldsEnd(from: 0) - 1
        trailersLeft = limits.fieldCountMax
    }

    package var isComplete: Bool { state == .complete }

    /// The bytes of trailer lines among those that the last call has read, without the empty line that ends them. Each
    /// line is whole once the body has ended.
    package var trailer: Range<Int> { Int(trailerStart)..<Int(trailerEnd) }

    /// Goes on at `offset` of `bytes`, and behind the range of the last `data` within the same span. After `needMore`,
    /// the next span begins with the bytes that follow; after `malformed` there is nothing more to ask.
    package mutating func next(_ bytes: Span<UInt8>, at offset: Int) -> BodyEvent {
        var i = max(offset, 0)
        trailerStart = 0
        trailerEnd = 0
        while i < bytes.count {
            if state == .data {
                let n = Int(min(chunk, UInt64(bytes.count - i)))
                chunk -= UInt64(n)
                if chunk == 0 { state = .dataCarriageReturn }
                return .data(i..<i + n)
            }
            if state == .complete { break }
            let isTrailer = state.isTrailer
            if let rule = step(bytes[i]) { return .malformed(Violation(rule, at: i)) }
            if isTrailer, state != .lastLineFeed {
                // A span of 2 GiB would hide the trailers in it, and nothing else.
                if trailerEnd == 0 { trailerStart = Int32(clamping: i) }
                trailerEnd = Int32(clamping: i + 1)
            }
            i += 1
        }
        return state == .complete ? .end(consumed: i) : .needMore(consumed: i)
    }

    /// Takes one byte that is no payload; returns the rule that it breaks, if any.
    private mutating func step(_ byte: UInt8) -> Rule? {
        switch state {
        case .size:
            return readSize(byte)
        case .blank, .chunkExtension:
            return readExtension(byte)
        case .sizeLineFeed:
            guard byte == ASCII.lineFeed else { return .bareCarriageReturn }
            state = chunk == 0 ? .trailerStart : .data
        case .dataCarriageReturn:
            // RFC 9112 §7.1: a chunk that is longer than it said. What follows would be read as a size.
            guard byte == ASCII.carriageReturn else { return .malformedChunkEnd }
            state = .dataLineFeed
        case .dataLineFeed:
            guard byte == ASCII.lineFeed else { return .malformedChunkEnd }
            beginSize()
        case .trailerStart, .trailerName, .trailerValue, .trailerLineFeed:
            return readTrailer(byte)
        case .lastLineFeed:
            guard byte == ASCII.lineFeed else { return .bareCarriageReturn }
            state = .complete
        case .data, .complete:
            break
        }
        return nil
    }

    private mutating func beginSize() {
        state = .size
        digits = 0
        chunk = 0
        extensionBytes = 0
    }

    /// No sign, no `0x`, no white space before, and no more than 63 bits: a size that wraps around is a size that
    /// another parser reads differently.
    private mutating func readSize(_ byte: UInt8) -> Rule? {
        let digit = hexadecimalValue(byte)
        if digit != 255 {
            guard digits < CodecLimits.sizeDigitsMax, chunk >> 59 == 0 else { return .chunkSizeTooLarge }
            digits += 1
            chunk = chunk << 4 | UInt64(digit)
            return nil
        }
        guard digits > 0 else { return .malformedChunkSize }
        switch byte {
        case ASCII.carriageReturn: state = .sizeLineFeed
        case ASCII.semicolon: state = .chunkExtension
        case ASCII.space, ASCII.tab: state = .blank
        case ASCII.lineFeed: return .bareLineFeed
        default: return .malformedChunkSize
        }
        return nil
    }

    /// RFC 9112 §7.1.1. An extension is ignored, so only its bytes are checked: a bare LF in it ends the line for some
    /// parsers (CVE-2025-22871), and a control may.
    private mutating func readExtension(_ byte: UInt8) -> Rule? {
        if byte == ASCII.lineFeed { return .bareLineFeed }
        if state == .blank {
            if byte == ASCII.semicolon {
                state = .chunkExtension
            } else if !isBlank(byte) {
                return .malformedChunkExtension
            }
        } else if byte == ASCII.carriageReturn {
            state = .sizeLineFeed
            return nil
        } else if !isFieldValue(byte) {
            return .malformedChunkExtension
        }
        extensionBytes += 1
        return extensionBytes > CodecLimits.extensionBytesMax ? .chunkExtensionTooLong : nil
    }

    /// The checks of `FieldSection`, one byte at a time.
    private mutating func readTrailer(_ byte: UInt8) -> Rule? {
        trailerBytesLeft -= 1
        guard trailerBytesLeft >= 0 else { return .headerBytes }
        switch state {
        case .trailerStart:
            if byte == ASCII.carriageReturn {
                state = .lastLineFeed
                return nil
            }
            guard isToken(byte) else { return nameViolation(byte, isFirst: true) }
            guard trailersLeft > 0 else { return .headerCount }
            trailersLeft -= 1
            state = .trailerName
        case .trailerName:
            if byte == ASCII.colon {
                state = .trailerValue
            } else if !isToken(byte) {
                return nameViolation(byte, isFirst: false)
            }
        case .trailerValue:
            if byte == ASCII.carriageReturn {
                state = .trailerLineFeed
            } else if !isFieldValue(byte) {
                return valueViolation(byte)
            }
        case .trailerLineFeed:
            guard byte == ASCII.lineFeed else { return .bareCarriageReturn }
            state = .trailerStart
        case .size, .blank, .chunkExtension, .sizeLineFeed, .data, .dataCarriageReturn, .dataLineFeed, .lastLineFeed,
            .complete:
            break
        }
        return nil
    }
}
