// What a request carries from end to end: its name, its place in a trace, and what the access log and spans want of its
// head. A node that wants none of it has no `Marking`, and its requests meet one comparison with nothing.

import Configuration
import HTTP1
import LinuxIO
import Primitives
import Tracing
import Transforms

/// What a node marks its requests with, prepared once for all workers.
final class Marking: Sendable {
    struct ID: Sendable {
        /// The beginning of the field's line.
        let line: [UInt8]
        let name: [UInt8]
        /// Whether it is the one that the parser knows.
        let isKnown: Bool
        let accept: Configuration.Believed
        let responds: Bool
        /// Spellings of the name that a backend may take for it.
        fileprivate let guarded: GuardedNames
        fileprivate let folded: FoldedNames

        init(_ settings: Configuration.RequestID) {
            line = Array("\(settings.header): ".utf8)
            name = Array(settings.header.lowercased().utf8)
            isKnown = name == Array("x-request-id".utf8)
            accept = settings.accept
            responds = settings.respond
            guarded = GuardedNames([settings.header])
            folded = FoldedNames([settings.header])
        }
    }

    struct Traces: Sendable {
        let accept: Configuration.Believed
        /// A trace that begins here is recorded where the lower half of its name is less; `nil`: every one is.
        fileprivate let threshold: UInt64?
        /// Whether spans are exported.
        let exports: Bool
        fileprivate static let parentName = Array("traceparent".utf8)
        fileprivate static let stateName = Array("tracestate".utf8)
        fileprivate let parent = GuardedNames(["traceparent"])
        fileprivate let both = GuardedNames(["traceparent", "tracestate"])

        init(_ settings: Configuration.Tracing) {
            accept = settings.accept
            exports = settings.otlp != nil
            let share = UInt64(settings.sample.millionths)
            threshold = share == 1_000_000 ? nil : share * (.max / 1_000_000)
        }
    }

    /// Something of a request's head that is wanted when the request has ended.
    enum Noted: Equatable, Sendable {
        /// A field, by its name in lower case.
        case field([UInt8])
        case authority
        case path
        /// The method, where it is none of those that are known.
        case unknownMethod
    }

    let id: ID?
    let traces: Traces?
    /// What a backend is told in the head alone, and what a client is.
    var guarded: [GuardedNames] { [id?.guarded, traces?.both].compactMap { $0 } }
    var guardedOfAnswers: [GuardedNames] { id.map { $0.responds ? [$0.guarded] : [] } ?? [] }
    /// What the access log wants, and behind it what spans want.
    let noted: [Noted]
    let authorityPlace: Int
    let pathPlace: Int
    let userAgentPlace: Int
    let methodPlace: Int

    /// `nil` where nothing is wanted.
    init?(id: Configuration.RequestID?, traces: Configuration.Tracing?, noted: [Noted]) {
        if id == nil, traces == nil, noted.isEmpty { return nil }
        self.id = id.map { ID($0) }
        self.traces = traces.map { Traces($0) }
        let spans: [Noted] = [.authority, .path, .field(Array("user-agent".utf8)), .unknownMethod]
        (authorityPlace, pathPlace) = (noted.count, noted.count + 1)
        (userAgentPlace, methodPlace) = (noted.count + 2, noted.count + 3)
        self.noted = noted + (traces?.otlp == nil ? [] : spans)
    }

    static func believes(_ whom: Configuration.Believed, isTrusted: Bool) -> Bool {
        switch whom {
        case .all: true
        case .trusted: isTrusted
        case .none: false
        }
    }
}

/// A request's place in a trace.
struct TraceMark {
    var id: WideID
    /// The span of whoever has asked this node; 0: the trace begins here.
    var parent: UInt64
    /// The span of what this node is asked.
    var span: UInt64
    /// The span of what this node asks a backend; where nobody hears of either they are one.
    var backendSpan: UInt64
    var isSampled: Bool
}

/// The marks of a connection's request. One object a connection, used again for each of its requests.
final class Marks {
    private(set) var marking: Marking
    /// Its name; empty where requests have none.
    private var id = ByteBuffer()
    /// Whether the field is ours to write: it is another than the client's, or stands among others like it.
    private var writesID = false
    /// `nil` where requests are not traced, or the head was none.
    private(set) var trace: TraceMark?
    private var noted = ByteBuffer()
    private var ends: [Int] = []

    init(_ marking: Marking) { self.marking = marking }

    /// Takes up the next request.
    func begin(
        _ marking: Marking, _ head: inout RequestHead, _ bytes: Span<UInt8>, isTrusted: Bool, _ ids: inout IDSource
    ) {
        self.marking = marking
        if let settings = marking.id { name(settings, &head, bytes, isTrusted, &ids) }
        trace = nil
        if let settings = marking.traces { follow(settings, &head, bytes, isTrusted, &ids) }
        var buffer = noted.take()
        buffer.clear()
        ends.removeAll(keepingCapacity: true)
        for wanted in marking.noted {
            switch wanted {
            case .authority: buffer.append(bytes.extracting(head.authority))
            case .unknownMethod: if head.method == .other { buffer.append(bytes.extracting(head.methodBytes)) }
            case .path:
                let path = bytes.extracting(head.path)
                buffer.append(path.extracting(first: min(path.count, DataPathLimits.notedBytesMax)))
            case .field(let name):
                if let place = head.fields.first(named: name.span, in: bytes) {
                    let value = bytes.extracting(head.fields[place].value)
                    buffer.append(value.extracting(first: min(value.count, DataPathLimits.notedBytesMax)))
                }
            }
            ends.append(buffer.count)
        }
        swap(&buffer, &noted)
    }

    /// The same for one whose head nobody understands.
    func begin(_ marking: Marking, _ ids: inout IDSource) {
        self.marking = marking
        noted.clear()
        ends.removeAll(keepingCapacity: true)
        trace = nil
        guard marking.id != nil else { return }
        id.clear()
        id.append(ids.wide())
    }

    private func name(
        _ settings: Marking.ID, _ head: inout RequestHead, _ bytes: Span<UInt8>, _ isTrusted: Bool,
        _ ids: inout IDSource
    ) {
        var text = id.take()
        text.clear()
        var given: Range<Int>?
        if Marking.believes(settings.accept, isTrusted: isTrusted) { given = Self.given(settings, head, bytes) }
        if let given {
            text.append(bytes.extracting(given))
            writesID = !settings.isKnown
        } else {
            text.append(ids.wide())
            writesID = true
        }
        swap(&text, &id)
        if writesID { head.keepBack(settings.guarded, bytes) }
    }

    /// The client's own name for its request, where it has one that can be kept.
    private static func given(
        _ settings: Marking.ID, _ head: borrowing RequestHead, _ bytes: Span<UInt8>
    ) -> Range<Int>? {
        var given: Range<Int>?
        if settings.isKnown {
            guard !head.fields.repeated.contains(.xRequestID) else { return nil }
            given = head.fields.first(.xRequestID)?.value
        } else if let place = head.fields.first(named: settings.name.span, in: bytes) {
            // Two names are none: a backend might read the other one.
            guard head.fields.first(named: settings.name.span, in: bytes, from: place + 1) == nil else { return nil }
            given = head.fields[place].value
        }
        guard let given, RequestID.isKept(bytes.extracting(given)) else { return nil }
        return given
    }

    /// Continues the trace of whoever asks, or begins one (W3C Trace Context §4.3).
    private func follow(
        _ settings: Marking.Traces, _ head: inout RequestHead, _ bytes: Span<UInt8>, _ isTrusted: Bool,
        _ ids: inout IDSource
    ) {
        let span = ids.narrow()
        let backendSpan = settings.exports ? ids.narrow() : span
        var parent: TraceParent?
        if Marking.believes(settings.accept, isTrusted: isTrusted) { parent = Self.parent(head, bytes) }
        if let parent {
            trace = TraceMark(
                id: parent.trace, parent: parent.parent, span: span, backendSpan: backendSpan,
                isSampled: parent.isSampled)
            head.keepBack(Self.hasState(head, bytes) ? settings.parent : settings.both, bytes)
        } else {
            let id = ids.wide()
            trace = TraceMark(
                id: id, parent: 0, span: span, backendSpan: backendSpan,
                isSampled: settings.threshold.map { id.low < $0 } ?? true)
            // A state belongs to the trace that it came with.
            head.keepBack(settings.both, bytes)
        }
    }

    private static func parent(_ head: borrowing RequestHead, _ bytes: Span<UInt8>) -> TraceParent? {
        let name = Marking.Traces.parentName
        guard let place = head.fields.first(named: name.span, in: bytes),
            head.fields.first(named: name.span, in: bytes, from: place + 1) == nil
        else { return nil }
        return TraceParent(bytes.extracting(head.fields[place].value))
    }

    /// Whether the state that came along can be passed on.
    private static func hasState(_ head: borrowing RequestHead, _ bytes: Span<UInt8>) -> Bool {
        var state = TraceState()
        var next = 0
        let name = Marking.Traces.stateName
        while let place = head.fields.first(named: name.span, in: bytes, from: next) {
            state.read(bytes.extracting(head.fields[place].value))
            next = place + 1
        }
        return state.isValid
    }

    // MARK: Lines

    var hasID: Bool { marking.id != nil }
    func appendID(to output: inout ByteBuffer) { output.append(id) }

    private func appendIDLine(_ settings: Marking.ID, to output: inout ByteBuffer) {
        output.append(settings.line)
        output.append(id)
        output.append("\r\n")
    }

    /// Whole lines for the backend.
    func appendRequestLines(to output: inout ByteBuffer) {
        if writesID, let settings = marking.id { appendIDLine(settings, to: &output) }
        if let trace {
            output.append("traceparent: ")
            output.append(TraceParent(trace: trace.id, parent: trace.backendSpan, isSampled: trace.isSampled))
            output.append("\r\n")
        }
    }

    /// Whole lines for the client.
    func appendResponseLines(to output: inout ByteBuffer) {
        if let settings = marking.id, settings.responds { appendIDLine(settings, to: &output) }
    }

    /// A member for a problem of RFC 9457. What can be kept of a name needs no quoting.
    func appendMember(to members: inout ByteBuffer) {
        guard hasID else { return }
        members.append(",\"requestID\":\"")
        members.append(id)
        members.append("\"")
    }

    /// What a backend's answer does not say of its own.
    var droppedOfAnswers: FieldSet {
        guard let settings = marking.id, settings.responds, settings.isKnown else { return FieldSet() }
        return [.xRequestID]
    }

    /// Adds to the head of a backend's answer, which begins at `start` of `output` and ends it.
    func complete(_ head: borrowing ResponseHead, _ bytes: Span<UInt8>, from start: Int, _ output: inout ByteBuffer) {
        guard let settings = marking.id, settings.responds else { return }
        if !settings.isKnown, head.fields.first(named: settings.name.span, in: bytes) != nil {
            var old = ByteBuffer()
            old.append(output.bytes.extracting(start..<output.count))
            output.truncate(to: start)
            copyHead(old.bytes, dropping: settings.folded, to: &output)
        }
        output.truncate(to: output.count - 2)
        appendIDLine(settings, to: &output)
        output.append("\r\n")
    }

    // MARK: What was noted

    /// Whether there is anything of it.
    func hasNoted(_ index: Int) -> Bool { index < ends.count && ends[index] > start(index) }

    func appendNoted(_ index: Int, to output: inout ByteBuffer) {
        guard index < ends.count else { return }
        output.appendEscaped(noted, start(index)..<ends[index])
    }

    /// The host of an authority, without its port and without the brackets of an address.
    func appendNotedHost(_ index: Int, to output: inout ByteBuffer) {
        guard hasNoted(index) else { return }
        output.appendEscaped(noted, Self.host(noted, start(index)..<ends[index]))
    }

    /// The port that an authority names.
    func notedPort(_ index: Int) -> Int? {
        guard hasNoted(index) else { return nil }
        return Self.port(noted, start(index)..<ends[index])
    }

    private static func host(_ noted: borrowing ByteBuffer, _ range: Range<Int>) -> Range<Int> {
        let bytes = noted.bytes
        let end = portStart(noted, range).map { $0 - 1 } ?? range.upperBound
        guard bytes[range.lowerBound] == UInt8(ascii: "[") else { return range.lowerBound..<end }
        return range.lowerBound + 1..<end - 1
    }

    private static func port(_ noted: borrowing ByteBuffer, _ range: Range<Int>) -> Int? {
        guard let start = portStart(noted, range), start < range.upperBound else { return nil }
        let bytes = noted.bytes
        return (start..<range.upperBound).reduce(0) { $0 * 10 + Int(bytes[$1] - 0x30) }
    }

    /// What stands behind the last colon, where only digits do; the parser has seen to the rest.
    private static func portStart(_ noted: borrowing ByteBuffer, _ range: Range<Int>) -> Int? {
        let bytes = noted.bytes
        var start = range.upperBound
        while start > range.lowerBound, bytes[start - 1] >= 0x30, bytes[start - 1] <= 0x39 { start -= 1 }
        return start > range.lowerBound && bytes[start - 1] == UInt8(ascii: ":") ? start : nil
    }

    private func start(_ index: Int) -> Int { index == 0 ? 0 : ends[index - 1] }
}

extension ClientConnection {
    /// Marks the request whose head is complete.
    func mark(_ head: inout RequestHead, _ bytes: Span<UInt8>) {
        guard let marking = worker.node.marking else { return }
        let marks = marks ?? Marks(marking)
        marks.begin(marking, &head, bytes, isTrusted: peerTrusted, &worker.ids)
        self.marks = marks
    }

    /// Marks a request without a head.
    func markAnew() {
        guard let marking = worker.node.marking else {
            marks = nil
            return
        }
        let marks = marks ?? Marks(marking)
        marks.begin(marking, &worker.ids)
        self.marks = marks
    }
}
