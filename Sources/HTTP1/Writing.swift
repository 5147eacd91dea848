// What the gateway writes: start lines, kept field lines, chunk framing and small responses of its own. All of it
// appends to the buffer of a connection; nothing is built on the side.

package import LinuxIO

/// Appends the field lines of `head` that belong to the next hop, byte for byte and in order. `bytes` are those that
/// were parsed. Neighbouring lines are copied in one go.
///
/// Hop-by-hop fields and those named in `Connection` are never among them; `dropping` says which others to leave out.
/// Transfer-Encoding is dropped too: who relays a chunked body writes the field and the chunks anew.
package func copyFields(
    of head: borrowing RequestHead, from bytes: Span<UInt8>, to output: inout ByteBuffer, dropping: FieldSet = []
) {
    copyFields(head.fields, from: bytes, to: &output, dropping: dropping)
}

/// As for requests. Where the response has no body by its status (1xx, 204), `dropping` should hold `contentLength`
/// (RFC 9110 §8.6).
package func copyFields(
    of head: borrowing ResponseHead, from bytes: Span<UInt8>, to output: inout ByteBuffer, dropping: FieldSet = []
) {
    copyFields(head.fields, from: bytes, to: &output, dropping: dropping)
}

private func copyFields(
    _ fields: borrowing HeaderFields, from bytes: Span<UInt8>, to output: inout ByteBuffer, dropping: FieldSet
) {
    var start = 0
    var end = 0
    for i in fields.lines.indices {
        if fields.lines[i].hopByHop || dropping.contains(fields.lines[i].id) { continue }
        let line = fields.lines[i].line
        if line.lowerBound != end {
            output.append(bytes.extracting(start..<end))
            start = line.lowerBound
        }
        end = line.upperBound
    }
    output.append(bytes.extracting(start..<end))
}

/// Appends the request line for the next hop: method, target in origin-form (or `*`), HTTP/1.1.
///
/// Where the form is absolute, the Host field is to be dropped and `authority` written in its place (RFC 9112 §3.2.2).
///
/// `strippingPrefix`: bytes of the path to leave out at its beginning; a path that does not begin with `/` afterwards
/// gets one. `/api` stripped from `/api?x=1` makes `/?x=1`.
///
/// `leavingOut`: a part of the query that is not passed on.
package func appendRequestLine(
    of head: borrowing RequestHead, from bytes: Span<UInt8>, strippingPrefix prefix: Int = 0,
    leavingOut hidden: Range<Int> = 0..<0, to output: inout ByteBuffer
) {
    output.append(bytes.extracting(head.methodBytes))
    output.append(ASCII.space)
    switch head.form {
    case .asterisk:
        output.append(ASCII.asterisk)
    case .origin, .absolute:
        let start = head.path.lowerBound + min(max(prefix, 0), head.path.count)
        // RFC 9112 §3.2.1: an empty path is sent as `/`.
        if start == head.path.upperBound || bytes[start] != ASCII.slash { output.append(ASCII.slash) }
        if hidden.isEmpty {
            output.append(bytes.extracting(start..<head.pathAndQuery.upperBound))
        } else {
            output.append(bytes.extracting(start..<hidden.lowerBound))
            output.append(bytes.extracting(hidden.upperBound..<head.pathAndQuery.upperBound))
        }
    }
    output.append(" HTTP/1.1\r\n")
}

extension ByteBuffer {
    /// Writes a length anew whose line was left out because it had leading zeros; nothing for -1.
    package mutating func appendRespelled(length: Int64) {
        guard length >= 0 else { return }
        append("Content-Length: ")
        append(decimal: Int(length))
        append("\r\n")
    }

    package mutating func appendLineEnd() { append("\r\n") }

    /// Appends a status line of HTTP/1.1 (RFC 9112 §4).
    package mutating func appendStatusLine(status: Int, reason: StaticString) {
        append("HTTP/1.1 ")
        append(decimal: status)
        append(ASCII.space)
        append(reason)
        append("\r\n")
    }

    /// Appends the status line of a backend's response as HTTP/1.1, with the backend's reason. `bytes` are those that
    /// were parsed.
    package mutating func appendStatusLine(of head: borrowing ResponseHead, from bytes: Span<UInt8>) {
        append("HTTP/1.1 ")
        append(decimal: head.status)
        append(ASCII.space)
        append(bytes.extracting(head.reason))
        append("\r\n")
    }

    /// Appends the line before the data of a chunk (RFC 9112 §7.1); `appendLineEnd` follows the data. Nothing for an
    /// empty chunk, which would end the body.
    package mutating func appendChunkHeader(size: Int) {
        guard size > 0 else { return }
        append(hexadecimal: UInt64(size))
        append("\r\n")
    }

    /// Appends a whole chunk; nothing where `data` is empty.
    package mutating func appendChunk(_ data: Span<UInt8>) {
        guard data.count > 0 else { return }
        reserve(data.count + 20)
        appendChunkHeader(size: data.count)
        append(data)
        append("\r\n")
    }

    /// Appends the chunk that ends a body, with no trailers.
    package mutating func appendLastChunk() { append("0\r\n\r\n") }

    /// Appends the chunk that ends a body, with those of these trailer lines that may be passed on.
    package mutating func appendLastChunk(trailers: Span<UInt8>, without names: GuardedNames = .none) {
        append("0\r\n")
        copyTrailers(trailers, without: names, to: &self)
        append("\r\n")
    }
}
