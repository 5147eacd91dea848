// What a request carries from end to end: its name, and what the access log wants of its head. A node that wants none of
// it has no `Marking`, and its requests meet one comparison with nothing.

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

    /// Something of a request's head that is wanted when the request has ended.
    enum Noted: Equatable, Sendable {
        /// A field, by its name in lower case.
        case field([UInt8])
        case authority
        case path
    }

    let id: ID?
    let noted: [Noted]

    /// `nil` where nothing is wanted.
    init?(id: Configuration.RequestID?, noted: [Noted]) {
        if id == nil, noted.isEmpty { return nil }
        self.id = id.map { ID($0) }
        self.noted = noted
    }

    static func believes(_ whom: Configuration.Believed, isTrusted: Bool) -> Bool {
        switch whom {
        case .all: true
        case .trusted: isTrusted
        case .none: false
        }
    }
}

/// The marks of a connection's request. One object a connection, used again for each of its requests.
final class Marks {
    private(set) var marking: Marking
    /// Its name; empty where requests have none.
    private var id = ByteBuffer()
    /// Whether the field is ours to write: it is another than the client's, or stands among others like it.
    private var writesID = false
    private var noted = ByteBuffer()
    private var ends: [Int] = []

    init(_ marking: Marking) { self.marking = marking }

    /// Takes up the next request.
    func begin(
        _ marking: Marking, _ head: inout RequestHead, _ bytes: Span<UInt8>, isTrusted: Bool, _ ids: inout IDSource
    ) {
        self.marking = marking
        if let settings = marking.id { name(settings, &head, bytes, isTrusted, &ids) }
        var buffer = noted.take()
        buffer.clear()
        ends.removeAll(keepingCapacity: true)
        for wanted in marking.noted {
            switch wanted {
            case .authority: buffer.append(bytes.extracting(head.authority))
            case .path: buffer.append(bytes.extracting(head.path))
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
