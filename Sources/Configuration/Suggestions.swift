/// The candidate that `text` most likely meant, if any is near.
package func suggestion(for text: String, among candidates: [String]) -> String? {
    if text.unicodeScalars.count > Bounds.misspeltScalarsMax { return nil }
    let wanted = folded(text)
    var best: (candidate: String, distance: Int)?
    for candidate in candidates {
        let letters = folded(candidate)
        // A third of the letters may be wrong; in a short name one.
        let allowed = max(1, letters.count / 3)
        let distance = editDistance(wanted, letters)
        if distance <= allowed, distance < best?.distance ?? .max { best = (candidate, distance) }
    }
    return best?.candidate
}

/// `rate_limit`, `rate-limit` and `ratelimit` all mean `rateLimit`.
private func folded(_ text: String) -> [Unicode.Scalar] {
    text.lowercased().unicodeScalars.filter { $0 != "_" && $0 != "-" }
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
func editDistance(_ a: [Unicode.Scalar], _ b: [Unicode.Scalar]) -> Int {
    var beforePrevious = [Int](repeating: 0, count: b.count + 1)
    var previous = Array(0...b.count)
    for i in a.indices {
        var current = [i + 1]
        for j in b.indices {
            var cost = min(previous[j + 1] + 1, current[j] + 1, previous[j] + (a[i] == b[j] ? 0 : 1))
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { cost = min(cost, beforePrevious[j - 1] + 1) }
            current.append(cost)
        }
        beforePrevious = previous
        previous = current
    }
    return previous[b.count]
}
