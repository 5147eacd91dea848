import Primitives

/// One decoder for all framings, so that a body is relayed by one loop:
///
///     var offset = 0
///     loop: while true {
///         switch decoder.next(bytes, at: offset) {
///         case .data(let range): …; offset = range.upperBound
///         case .needMore(let consumed): offset = consumed; break loop
///         case .end(let consumed): offset = consumed; break loop
///         case .malformed(let violation): …
///         }
///     }
///
/// Everything before `offset` may then be discarded.
package struct BodyDecoder: Sendable {
    private enum Framing {
        /// Bytes that are still to come; zero where there is no body.
        case length(Int64)
        case chunked(ChunkedDecoder)
        case untilClose
    }

    private var framing: Framing
    private let bytesMax: Int64
    /// Bytes of payload so far.
    package private(set) var received: Int64 = 0

    /// `bytesMax`: bytes of payload beyond which the body is refused with 413; 0 means no limit. `limits` bound the
    /// trailer section.
    package init(_ framing: RequestFraming, limits: HeadLimits, bytesMax: Int64 = 0) {
        self.framing =
            switch framing {
            case .none: .length(0)
            case .length(let length): .length(length)
            case .chunked: .chunked(ChunkedDecoder(limits: limits))
            }
        self.bytesMax = bytesMax
    }

    package init(_ framing: ResponseFraming, limits: HeadLimits, bytesMax: Int64 = 0) {
        self.framing =
            switch framing {
            case .none: .length(0)
            case .length(let length): .length(length)
            case .chunked: .chunked(ChunkedDecoder(limits: limits))
            case .untilClose: .untilClose
            }
        self.bytesMax = bytesMax
    }

    /// Whether nothing more belongs to the body. Never true for a body that the end of the connection ends.
    package var isComplete: Bool {
        switch framing {
        case .length(let left): left == 0
        case .chunked(let decoder): decoder.isComplete
        case .untilClose: false
        }
    }

    /// The bytes of trailer lines among those that the last call has read (`ChunkedDecoder.trailer`).
    package var trailer: Range<Int> {
        switch framing {
        case .chunked(let decoder): decoder.trailer
        case .length, .untilClose: 0..<0
        }
    }

    /// Bytes of payload that are still to come, where that is known.
    package var remaining: Int64? {
        switch framing {
        case .length(let left): left
        case .chunked(let decoder): decoder.isComplete ? 0 : nil
        case .untilClose: nil
        }
    }

    /// Goes on at `offset` of `bytes`. A body whose announced length is too large is refused at the first call.
    package mutating func next(_ bytes: Span<UInt8>, at offset: Int) -> BodyEvent {
        let start = min(max(offset, 0), bytes.count)
        switch framing {
        case .length(let left):
            guard bytesMax <= 0 || left <= bytesMax else {
                return .malformed(Violation(.bodyTooLarge, at: start))
            }
            guard left > 0 else { return .end(consumed: start) }
            guard start < bytes.count else { return .needMore(consumed: start) }
            let n = min(left, Int64(bytes.count - start))
            framing = .length(left - n)
            received = saturatingAdd(received, n)
            return .data(start..<start + Int(n))
        case .chunked(var decoder):
            let event = decoder.next(bytes, at: start)
            framing = .chunked(decoder)
            return count(event)
        case .untilClose:
            return start < bytes.count ? count(.data(start..<bytes.count)) : .needMore(consumed: start)
        }
    }

    /// The rule that the body breaks in the bytes from `offset` on, as far as they are known. Nothing is read by that.
    @inline(never)
    package func violation(in bytes: Span<UInt8>, from offset: Int) -> Violation? {
        var ahead = self
        var offset = offset
        while true {
            switch ahead.next(bytes, at: offset) {
            case .data(let range): offset = range.upperBound
            case .needMore, .end: return nil
            case .malformed(let violation): return violation
            }
        }
    }

    private mutating func count(_ event: BodyEvent) -> BodyEvent {
        guard case .data(let range) = event else { return event }
        received = saturatingAdd(received, Int64(range.count))
        guard bytesMax <= 0 || received <= bytesMax else {
            return .malformed(Violation(.bodyTooLarge, at: range.lowerBound))
        }
        return event
    }

    /// What the end of the connection means: the end of the body, or the loss of its rest (RFC 9112 §8).
    package enum End: Equatable, Sendable {
        case complete, truncated
    }

    package var endOfInput: End {
        switch framing {
        case .length(let left): left == 0 ? .complete : .truncated
        case .chunked(let decoder): decoder.isComplete ? .complete : .truncated
        case .untilClose: .complete
        }
    }
}
