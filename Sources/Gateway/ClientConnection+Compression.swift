// Answers of services that change them: their heads, and bodies that are compressed on their way.

import Compression
import Configuration
import EventLoop
import HTTP1
import LinuxIO
import Primitives
import Transforms

extension ClientConnection {
    /// How an answer stands to compression.
    enum Compressing {
        /// It is none of our business.
        case never
        /// It is of a kind that is compressed, for a client that does not want it so, or too short.
        case elsewhere
        /// A 304, or the answer to a HEAD, where the body would be compressed: the head says what that body's would.
        case headAlone
        case now
    }

    /// Whether the answer that begins is compressed on its way; an encoder is at hand then.
    func compressing(
        _ exchange: TransformedExchange, _ head: borrowing ResponseHead, _ bytes: Span<UInt8>,
        _ framing: ResponseFraming
    ) -> Compressing {
        // RFC 9110 §9.3.2, §15.4.5: a HEAD and a 304 have no body, and the head that it would have.
        guard let settings = exchange.transforms.settings.compression, head.status != 204,
            framing != .none || method == .head || head.status == 304
        else { return .never }
        let isRevalidation = head.status == 304
        // A 304 need not say what it is about.
        var isOfType = isRevalidation
        var saysType = false
        var tag: Range<Int>?
        for index in 0..<head.fields.count {
            let field = head.fields[index]
            switch field.id {
            case .contentType:
                saysType = true
                isOfType = settings.types.contains(bytes.extracting(field.value))
            // RFC 9110 §7.7: a proxy must not change the content then.
            case .cacheControl: if Self.forbidsTransform(bytes.extracting(field.value)) { return .never }
            case .other:
                for name: StaticString in [
                    // Compressed already, or a check of bytes that would be others.
                    "content-encoding", "content-digest", "repr-digest", "digest", "content-md5",
                ] where Self.isNamed(bytes, field.name, name) { return .never }
                if Self.isNamed(bytes, field.name, "etag") { tag = field.value }
            default: break
            }
        }
        guard isOfType else { return .never }
        // RFC 9110 §15.3.7: a part is one of the bytes that the backend has. Who asks for all may get others.
        if head.status == 206 { return .elsewhere }
        if let length = head.announcedLength, length < Int64(settings.minBytes) { return .elsewhere }
        guard exchange.wantsGzip else { return .elsewhere }
        if isRevalidation {
            guard let tag else { return .elsewhere }
            // The client's own tags tell which of the two it has; without them the kind of content decides.
            let known = exchange.knownTags
            let isCompressed = known.isEmpty ? saysType : Self.holds(known.span, weak: bytes.extracting(tag))
            return isCompressed ? .headAlone : .elsewhere
        }
        if framing == .none { return .headAlone }
        return exchange.beginGzip(worker.gzips, level: settings.level) ? .now : .elsewhere
    }

    /// Whether a list of tags has the weak form of one. A tag is in quotes and has none inside (RFC 9110 §8.8.3).
    private static func holds(_ list: Span<UInt8>, weak tag: Span<UInt8>) -> Bool {
        var i = 0
        while i + 2 + tag.count <= list.count {
            if list[i] == UInt8(ascii: "W"), list[i + 1] == UInt8(ascii: "/") {
                var same = 0
                while same < tag.count, list[i + 2 + same] == tag[same] { same += 1 }
                if same == tag.count { return true }
            }
            i += 1
        }
        return false
    }

    private static func forbidsTransform(_ value: Span<UInt8>) -> Bool {
        let word = Array("no-transform".utf8)
        var i = 0
        while i + word.count <= value.count {
            var same = 0
            while same < word.count, value[i + same] | 0x20 == word[same] || value[i + same] == word[same] { same += 1 }
            if same == word.count { return true }
            i += 1
        }
        return false
    }

    /// Changes the head of an answer, which begins at `start` of `output` and ends it.
    func transformHead(
        _ exchange: TransformedExchange, from start: Int, _ kind: Compressing, _ output: inout ByteBuffer
    ) {
        let transforms = exchange.transforms
        var head = ByteBuffer()
        head.append(output.bytes.extracting(start..<output.count - 2))
        output.truncate(to: start)
        switch kind {
        case .never, .elsewhere: copyHead(head.bytes, dropping: transforms.responseDropped, to: &output)
        case .headAlone, .now:
            copyHead(head.bytes, dropping: transforms.compressedDropped, weakensTags: true, to: &output)
            // RFC 9110 §15.4.5: a 304 says which content is meant, and nothing of what it is.
            if status != 304 { output.append("Content-Encoding: gzip\r\n") }
        }
        // RFC 9110 §12.5.5: a cache must not give the one to who wants the other.
        if kind != .never { output.append("Vary: Accept-Encoding\r\n") }
        for lines in [exchange.linesInPlace, exchange.linesBeside] {
            copyLines(lines.span, weakensTags: kind == .headAlone || kind == .now, to: &output)
        }
        output.append("\r\n")
    }

    /// Takes bytes of the body.
    func compress(_ bytes: Span<UInt8>) -> Bool {
        guard let gzip = transformed?.gzip else { return false }
        var made = gzip.made.take()
        let succeeded = gzip.stream.write(bytes, .none, to: &made)
        swap(&made, &gzip.made)
        return succeeded
    }

    /// Writes what has been made of the bytes so far, so that events and lines reach the client when the backend sends
    /// them, and the end of the body where it has ended.
    func flushCompressed(isLast: Bool, _ output: inout ByteBuffer) {
        guard let gzip = transformed?.gzip else { return }
        guard isLast || gzip.stream.owesFlush else { return }
        var made = gzip.made.take()
        _ = gzip.stream.write(Span(), isLast ? .finish : .sync, to: &made)
        responseBytes += made.count
        output.appendChunk(made.bytes)
        made.clear()
        swap(&made, &gzip.made)
        guard isLast else { return }
        output.appendLastChunk()
        transformed?.endGzip()
    }
}
