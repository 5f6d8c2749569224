//! An answer as blocks of one kind each, for the protocols that number them (Anthropic's messages, OpenAI's responses).

use crate::reader::Piece;
use crate::tools::Call;

/// A block of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Reasoning(String),
    Text(String),
    Call(Call),
}

/// What a piece does to the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The block with this number is complete.
    Closed(usize, Block),
    /// A block of a kind begins: of calls with all that they say, of others empty.
    Opened(usize, Block),
    /// Text of the block that is open.
    Added(usize, Piece),
}

/// The blocks so far.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    done: Vec<Block>,
    open: Option<Block>,
}

impl Blocks {
    /// Takes a piece.
    pub(crate) fn push(&mut self, piece: Piece) -> Vec<Change> {
        let mut changes = Vec::new();
        let same = matches!(
            (&self.open, &piece),
            (Some(Block::Reasoning(_)), Piece::Reasoning(_)) | (Some(Block::Text(_)), Piece::Content(_))
        );
        if !same {
            changes.extend(self.close());
            let block = match &piece {
                Piece::Reasoning(_) => Block::Reasoning(String::new()),
                Piece::Content(_) => Block::Text(String::new()),
                Piece::Call(call) => Block::Call(call.clone()),
            };
            changes.push(Change::Opened(self.done.len(), block.clone()));
            self.open = Some(block);
        }
        if let (Some(Block::Reasoning(all) | Block::Text(all)), Piece::Reasoning(new) | Piece::Content(new)) =
            (&mut self.open, &piece)
        {
            all.push_str(new);
            changes.push(Change::Added(self.done.len(), piece));
        }
        changes
    }

    /// Completes the block that is open, if one is.
    pub(crate) fn close(&mut self) -> Option<Change> {
        let block = self.open.take()?;
        self.done.push(block.clone());
        Some(Change::Closed(self.done.len() - 1, block))
    }

    /// All blocks, the last one completed.
    pub(crate) fn finish(mut self) -> Vec<Block> {
        self.close();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_kind_are_one_block() {
        let mut blocks = Blocks::default();
        let call = Call { name: "f".into(), arguments: "{}".into() };
        let pieces = [
            Piece::Reasoning("a".into()),
            Piece::Reasoning("b".into()),
            Piece::Content("c".into()),
            Piece::Call(call.clone()),
            Piece::Call(call.clone()),
        ];
        let changes: Vec<Change> = pieces.into_iter().flat_map(|piece| blocks.push(piece)).collect();
        assert_eq!(
            changes[..2],
            [Change::Opened(0, Block::Reasoning(String::new())), Change::Added(0, Piece::Reasoning("a".into()))]
        );
        assert_eq!(changes[3], Change::Closed(0, Block::Reasoning("ab".into())));
        let all =
            [Block::Reasoning("ab".into()), Block::Text("c".into()), Block::Call(call.clone()), Block::Call(call)];
        assert_eq!(blocks.finish(), all);
    }
}
