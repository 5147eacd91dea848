// Where a request comes from, by what its sender says.

import LinuxIO
import Primitives
import Tracing

/// A parent is one line, a state may be several. What counts is passed on, and must mean the same to the next reader.
func checkTrace(_ input: [UInt8]) throws {
    let lines = input.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map(Array.init)
    guard let first = lines.first else { return }
    if let parent = TraceParent(first.span) {
        try require(!parent.trace.isZero && parent.parent != 0, "nobody's name: \(shown(first))")
        var written = ByteBuffer()
        written.append(parent)
        try require(written.count == TraceParent.length, "of another length: \(shown(first))")
        try require(TraceParent(written.bytes) == parent, "read otherwise: \(shown(first))")
        // A version that is known is passed on as it came, but for flags that are not known.
        if first[0] == UInt8(ascii: "0"), first[1] == UInt8(ascii: "0") {
            try require(written.array.prefix(53) == first.prefix(53), "written otherwise: \(shown(first))")
        }
    }
    let whole = read(lines)
    try require(
        whole == read([Array(lines.joined(separator: [UInt8(ascii: ",")]))]), "joined otherwise: \(shown(input))")
    if whole {
        for line in lines { try require(read([line]), "valid in company alone: \(shown(input))") }
        try require(
            lines.joined().allSatisfy { $0 == 0x09 || $0 >= 0x20 && $0 < 0x7f }, "no line of text: \(shown(input))")
    }
    if RequestID.isKept(first.span) {
        try require(
            first.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x22 && $0 != 0x5c && $0 != 0x27 },
            "a name that needs quotes: \(shown(first))")
    }
}

private func read(_ lines: [[UInt8]]) -> Bool {
    var state = TraceState()
    for line in lines { state.read(line.span) }
    return state.isValid
}
