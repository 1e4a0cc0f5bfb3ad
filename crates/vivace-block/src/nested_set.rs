//! The position of every span in its trace's tree, as numbers that structural queries compare.
//!
//! Source: docs/facts/blocks.md, "Nested set numbering".

use rustc_hash::FxHashMap;
use vivace_core::SpanId;

/// What decides a span's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: SpanId,
    /// None for a root.
    pub parent: Option<SpanId>,
    /// OTLP's number.
    pub kind: i64,
}

/// A span's place. All zero when it hangs on no root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Below the left of everything beneath it.
    pub left: i32,
    /// Above the right of everything beneath it.
    pub right: i32,
    /// The parent's left; -1 for a root.
    pub parent: i32,
    /// Direct children. Known also for spans that hang on no root, unless the trace has none.
    pub child_count: i32,
}

const SERVER: i64 = 2;
const CLIENT: i64 = 3;

/// Numbers all spans of a trace, in the order of `nodes`.
///
/// Everything stays 0 without a root, and when an id occurs more than twice.
#[must_use]
pub fn number(nodes: &[Node]) -> Vec<Position> {
    let mut positions = vec![Position::default(); nodes.len()];
    let roots: Vec<u32> = (0..nodes.len() as u32).filter(|i| nodes[*i as usize].parent.is_none()).collect();
    if roots.is_empty() {
        return positions;
    }
    let Some(parents) = parents(nodes) else { return positions };

    // The children of node i are `children[first[i]..first[i + 1]]`, in row order.
    let mut first = vec![0u32; nodes.len() + 1];
    for parent in parents.iter().flatten() {
        first[*parent as usize + 1] += 1;
        positions[*parent as usize].child_count += 1;
    }
    for i in 0..nodes.len() {
        first[i + 1] += first[i];
    }
    let mut next = first.clone();
    let mut children = vec![0u32; first[nodes.len()] as usize];
    for (child, parent) in parents.iter().enumerate() {
        if let Some(parent) = parent {
            let slot = &mut next[*parent as usize];
            children[*slot as usize] = child as u32;
            *slot += 1;
        }
    }

    // Depth first without recursion: traces can be chains of any length. A node has one parent and roots have none,
    // so no node is reached twice and cycles are never entered.
    let mut counter = 1;
    let mut path: Vec<(u32, u32)> = Vec::new();
    for root in roots {
        enter(&mut positions, &mut counter, root, -1);
        path.push((root, first[root as usize]));
        while let Some((node, at)) = path.last_mut() {
            let node = *node;
            if *at < first[node as usize + 1] {
                let child = children[*at as usize];
                *at += 1;
                let left = positions[node as usize].left;
                enter(&mut positions, &mut counter, child, left);
                path.push((child, first[child as usize]));
            } else {
                positions[node as usize].right = counter;
                counter += 1;
                path.pop();
            }
        }
    }
    positions
}

fn enter(positions: &mut [Position], counter: &mut i32, node: u32, parent: i32) {
    let position = &mut positions[node as usize];
    position.left = *counter;
    position.parent = parent;
    *counter += 1;
}

/// The parent of every node; none at all when an id occurs more than twice.
fn parents(nodes: &[Node]) -> Option<Vec<Option<u32>>> {
    const NONE: u32 = u32::MAX;
    let mut by_id: FxHashMap<SpanId, (u32, u32)> = FxHashMap::with_capacity_and_hasher(nodes.len(), Default::default());
    for (i, node) in nodes.iter().enumerate() {
        let twins = by_id.entry(node.id).or_insert((NONE, NONE));
        match twins {
            (NONE, _) => twins.0 = i as u32,
            (_, NONE) => twins.1 = i as u32,
            _ => return None,
        }
    }
    let parent = |node: &Node| {
        let (a, b) = *by_id.get(&node.parent?)?;
        if b == NONE {
            return Some(a);
        }
        let wanted = if node.kind == SERVER { CLIENT } else { SERVER };
        [a, b].into_iter().find(|i| nodes[*i as usize].kind == wanted)
    };
    Some(nodes.iter().map(parent).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(id: u8, parent: u8, kind: i64) -> Node {
        let span_id = |n: u8| SpanId([n, 0, 0, 0, 0, 0, 0, 0]);
        Node { id: span_id(id), parent: (parent != 0).then(|| span_id(parent)), kind }
    }

    fn numbers(nodes: &[Node]) -> Vec<[i32; 4]> {
        number(nodes).iter().map(|p| [p.left, p.right, p.parent, p.child_count]).collect()
    }

    #[test]
    fn the_counter_runs_on_over_several_roots() {
        let trace = [node(1, 0, 1), node(2, 1, 1), node(3, 0, 1)];
        assert_eq!(numbers(&trace), [[1, 4, -1, 1], [2, 3, 1, 0], [5, 6, -1, 0]]);
    }

    #[test]
    fn orphans_and_cycles_have_no_position() {
        let trace = [node(1, 0, 1), node(2, 9, 1), node(3, 2, 1), node(4, 5, 1), node(5, 4, 1), node(6, 6, 1)];
        let expected = [[1, 2, -1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]];
        assert_eq!(numbers(&trace), expected);
        assert_eq!(numbers(&[node(1, 2, 1), node(2, 1, 1)]), [[0; 4]; 2]);
    }

    #[test]
    fn a_shared_id_is_two_spans() {
        // Client 2 and server 2 share an id: the server half hangs on the client half, other children on the server half.
        let trace = [node(1, 0, 1), node(2, 1, CLIENT), node(2, 2, SERVER), node(3, 2, 1), node(4, 2, SERVER)];
        assert_eq!(numbers(&trace), [[1, 10, -1, 1], [2, 9, 1, 2], [3, 6, 2, 1], [4, 5, 3, 0], [7, 8, 2, 0]]);
        // Neither half has the wanted kind.
        assert_eq!(numbers(&[node(1, 0, 1), node(1, 0, 1), node(2, 1, 1)])[2], [0; 4]);
    }

    #[test]
    fn an_id_on_three_spans_leaves_the_trace_without_positions() {
        assert_eq!(numbers(&[node(1, 0, 1), node(2, 1, 1), node(2, 1, 2), node(2, 1, 3)]), [[0; 4]; 4]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let id = |n: u32| SpanId([0, 0, 0, 0, (n >> 24) as u8, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
        let chain: Vec<_> = (0..200_000).map(|n| Node { id: id(n), parent: n.checked_sub(1).map(id), kind: 1 }).collect();
        let positions = number(&chain);
        assert_eq!(positions[0].right, 400_000);
        assert_eq!(positions[199_999].left, 200_000);
    }

    /// The rules word by word, as slow as they are plain: every question is a walk over all spans.
    struct Model<'n> {
        nodes: &'n [Node],
        counter: i32,
        positions: Vec<Position>,
    }

    impl Model<'_> {
        fn number(nodes: &[Node]) -> Vec<Position> {
            let mut model = Model { nodes, counter: 1, positions: vec![Position::default(); nodes.len()] };
            let is_root = |i: &usize| nodes[*i].parent.is_none();
            let roots: Vec<usize> = (0..nodes.len()).filter(is_root).collect();
            let spans_with = |id| nodes.iter().filter(|node| node.id == id).count();
            if roots.is_empty() || nodes.iter().any(|node| spans_with(node.id) > 2) {
                return model.positions;
            }
            for i in 0..nodes.len() {
                model.positions[i].child_count = model.children(i).len() as i32;
            }
            for root in roots {
                model.visit(root, -1);
            }
            model.positions
        }

        fn visit(&mut self, node: usize, parent: i32) {
            let left = self.counter;
            self.counter += 1;
            for child in self.children(node) {
                self.visit(child, left);
            }
            self.positions[node] = Position { left, right: self.counter, parent, ..self.positions[node] };
            self.counter += 1;
        }

        fn children(&self, node: usize) -> Vec<usize> {
            (0..self.nodes.len()).filter(|child| self.parent(*child) == Some(node)).collect()
        }

        fn parent(&self, child: usize) -> Option<usize> {
            let child = &self.nodes[child];
            let named: Vec<usize> = (0..self.nodes.len()).filter(|i| Some(self.nodes[*i].id) == child.parent).collect();
            match named.as_slice() {
                [one] => Some(*one),
                [first, second] => {
                    let wanted = if child.kind == SERVER { CLIENT } else { SERVER };
                    [*first, *second].into_iter().find(|i| self.nodes[*i].kind == wanted)
                }
                _ => None,
            }
        }
    }

    /// Trees in any order, then parents that are missing, their own or in circles, shared ids and ids on three spans.
    fn traces() -> impl Strategy<Value = Vec<Node>> {
        let span = (any::<prop::sample::Index>(), 0u8..20, 0i64..6);
        prop::collection::vec(span, 1..40).prop_map(|spans| {
            let mut nodes: Vec<Node> = Vec::new();
            for (number, (of, how, kind)) in spans.into_iter().enumerate() {
                let new = number as u8 + 1;
                let other = if nodes.is_empty() { new } else { nodes[of.index(nodes.len())].id.0[0] };
                nodes.push(match how {
                    0 => node(new, 0, kind),
                    1 => node(new, new, kind),
                    2 => node(new, 200, kind),
                    3 => node(other, 0, kind),
                    // The two halves of a call, the server's in its own name or below another.
                    4 => node(other, other, SERVER),
                    5 => node(other, of.index(60) as u8, kind),
                    // A parent that comes later, or never.
                    6 | 7 => node(new, of.index(40) as u8 + 1, kind),
                    _ => node(new, if number == 0 { 0 } else { other }, kind),
                });
            }
            nodes
        })
    }

    #[test]
    fn the_model_is_right_about_the_cases_above() {
        let model = |nodes: &[Node]| Model::number(nodes).iter().map(|p| [p.left, p.right, p.parent, p.child_count]).collect::<Vec<_>>();
        for trace in [
            vec![node(1, 0, 1), node(2, 1, 1), node(3, 0, 1)],
            vec![node(1, 0, 1), node(2, 9, 1), node(3, 2, 1), node(4, 5, 1), node(5, 4, 1), node(6, 6, 1)],
            vec![node(1, 0, 1), node(2, 1, CLIENT), node(2, 2, SERVER), node(3, 2, 1), node(4, 2, SERVER)],
            vec![node(1, 0, 1), node(2, 1, 1), node(2, 1, 2), node(2, 1, 3)],
            vec![node(1, 2, 1), node(2, 1, 1)],
        ] {
            assert_eq!(model(&trace), numbers(&trace));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn numbers_are_the_models(trace in traces()) {
            prop_assert_eq!(number(&trace), Model::number(&trace));
        }
    }

    proptest! {
        #[test]
        fn numbers_are_nested_intervals(trace in prop::collection::vec((1u8..12, 0u8..12, 0i64..6), 1..40)) {
            let nodes: Vec<_> = trace.iter().map(|(id, parent, kind)| node(*id, *parent, *kind)).collect();
            let positions = number(&nodes);
            let placed: Vec<_> = positions.iter().enumerate().filter(|(_, p)| p.left != 0).collect();
            // Every number from 1 on is used exactly once.
            let mut used: Vec<i32> = placed.iter().flat_map(|(_, p)| [p.left, p.right]).collect();
            used.sort_unstable();
            prop_assert!(used.iter().copied().eq(1..=2 * placed.len() as i32));
            for (i, p) in &placed {
                prop_assert!(p.left < p.right);
                if p.parent == -1 {
                    prop_assert!(nodes[*i].parent.is_none());
                } else {
                    let (parent, above) = placed.iter().find(|(_, q)| q.left == p.parent).expect("the parent is placed");
                    prop_assert!(above.left < p.left && p.right < above.right);
                    prop_assert_eq!(Some(nodes[*parent].id), nodes[*i].parent);
                }
            }
            for (a, p) in &placed {
                for (b, q) in &placed {
                    prop_assert!(a == b || p.right < q.left || q.right < p.left || (p.left < q.left) == (q.right < p.right));
                }
            }
            for (i, p) in positions.iter().enumerate() {
                if p.left == 0 {
                    prop_assert_eq!((p.right, p.parent), (0, 0));
                    prop_assert!(nodes[i].parent.is_some() || positions.iter().all(|p| *p == Position::default()));
                }
            }
        }
    }
}
