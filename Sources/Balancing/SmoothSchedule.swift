/// The longest schedule: two bytes an entry make 128 KiB.
let scheduleLengthMax = 65_535

/// One full cycle of nginx's smooth weighted round robin (`ngx_http_upstream_round_robin.c`, 2012): every turn each
/// entry gains its weight, the largest is taken and pays the sum of all. Each position appears exactly as often as its
/// weight says, spread as evenly as whole turns allow: 5, 1, 1 gives a a b a c a a.
///
/// Run once when the snapshot is built, so that a pick is one look into the table, and workers that share nothing but
/// a counter keep the proportions exact.
/// - Parameter weights: 1 or more each, with no common divisor.
func smoothSchedule(_ weights: [Int]) -> [UInt16] {
    // The sum is below 2^16 and no standing leaves ± sum times two: 32 bits, which the compiler adds four at a time.
    let weights = scaledDown(weights).map { Int32(truncatingIfNeeded: $0) }
    let total = weights.reduce(0, &+)
    var standing = [Int32](repeating: 0, count: weights.count)
    var schedule: [UInt16] = []
    schedule.reserveCapacity(Int(total))
    for _ in 0..<total {
        for position in weights.indices { standing[position] &+= weights[position] }
        var best = 0
        var highest = Int32.min
        for position in standing.indices where standing[position] > highest {
            best = position
            highest = standing[position]
        }
        standing[best] &-= total
        schedule.append(UInt16(truncatingIfNeeded: best))
    }
    return schedule
}

/// The configuration refuses weights with a longer cycle; here they lose precision, and no entry its place.
private func scaledDown(_ weights: [Int]) -> [Int] {
    var weights = weights
    while weights.reduce(0, saturatingSum) > scheduleLengthMax, weights.contains(where: { $0 > 1 }) {
        for position in weights.indices { weights[position] = max(1, weights[position] / 2) }
    }
    return weights
}

private func saturatingSum(_ a: Int, _ b: Int) -> Int {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? .max : sum
}

func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
    var (a, b) = (a, b)
    while b != 0 { (a, b) = (b, a % b) }
    return a
}
