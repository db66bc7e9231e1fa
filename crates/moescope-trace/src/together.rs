//! The tables of one run brought together: what belongs to the same tokens, and nothing else.

use polars::prelude::{InitHashMaps, PlHashMap};

use crate::error::TraceError;
use crate::manifest::MoeShape;
use crate::reader::Run;
use crate::tables::{LayerTable, Lists, RoutingTable, StepTable, TokenTable};

/// All tables of a run, of which tokens and routing cover the same tokens.
///
/// Parts of different tables are written one after the other, so a run that died may have tokens without
/// routing and the reverse. The rule is one: **a token is kept if it has a row in `tokens/` and a row in
/// `routing/` for every MoE layer of the manifest; a routing row is kept if its token is.** For a dense model
/// every token is kept. Steps and layers are kept as they are: each of their rows stands for itself.
///
/// Rows keep the order of the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunTables {
    /// Tokens with complete routing.
    pub tokens: TokenTable,
    /// Routing of those tokens: `tokens.rows() * L` rows. Every expert id is below the E of its layer.
    pub routing: RoutingTable,
    /// For each routing row the index of its token in `tokens`.
    pub token_of_row: Vec<u32>,
    /// Forward passes.
    pub steps: StepTable,
    /// Component times; `None` if the run was not profiled.
    pub layers: Option<LayerTable>,
    /// What was left out.
    pub dropped: Dropped,
}

/// Rows left out because their counterpart is missing. Both are 0 for a complete run of our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Tokens without routing, or without the routing of some layer.
    pub tokens: usize,
    /// Routing rows of tokens that are not kept.
    pub routing_rows: usize,
}

const NO_TOKEN: u32 = u32::MAX;

pub(crate) fn join_tables(
    run: &Run,
    mut tokens: TokenTable,
    mut routing: RoutingTable,
    steps: StepTable,
    layers: Option<LayerTable>,
) -> Result<RunTables, TraceError> {
    let mut join = Join::new(run, &tokens)?;
    let mut token_of_row = Vec::with_capacity(routing.rows());
    join.add(run, &tokens, &routing, &mut token_of_row)?;
    let keep = join.complete();
    let keep_row: Vec<bool> =
        token_of_row.iter().map(|token| *token != NO_TOKEN && keep[*token as usize]).collect();
    let dropped = Dropped {
        tokens: keep.iter().filter(|keep| !**keep).count(),
        routing_rows: keep_row.iter().filter(|keep| !**keep).count(),
    };
    if dropped.routing_rows > 0 {
        routing.retain(&keep_row);
        retain(&mut token_of_row, &keep_row);
    }
    if dropped.tokens > 0 {
        tokens.retain(&keep);
        let mut new_index = Vec::with_capacity(keep.len());
        let mut next = 0;
        for keep in &keep {
            new_index.push(next);
            next += u32::from(*keep);
        }
        for token in &mut token_of_row {
            *token = new_index[*token as usize];
        }
    }
    if dropped != Dropped::default() {
        tracing::debug!(?dropped, run = %run.path().display(), "tokens without complete routing");
    }
    Ok(RunTables { tokens, routing, token_of_row, steps, layers, dropped })
}

/// Calls `each` with batches of routing rows that have a token, and the row of each one's token in `tokens`;
/// says of each token whether its routing is complete.
pub(crate) fn join_each<E: From<TraceError>>(
    run: &Run,
    tokens: &TokenTable,
    read: impl FnOnce(&mut dyn FnMut(RoutingTable) -> Result<(), E>) -> Result<(), E>,
    mut each: impl FnMut(&RoutingTable, &[u32]) -> Result<(), E>,
) -> Result<Vec<bool>, E> {
    let mut join = Join::new(run, tokens)?;
    let mut token_of_row = Vec::new();
    read(&mut |mut routing| {
        token_of_row.clear();
        join.add(run, tokens, &routing, &mut token_of_row)?;
        if token_of_row.contains(&NO_TOKEN) {
            let keep: Vec<bool> = token_of_row.iter().map(|token| *token != NO_TOKEN).collect();
            routing.retain(&keep);
            retain(&mut token_of_row, &keep);
        }
        each(&routing, &token_of_row)
    })?;
    Ok(join.complete())
}

/// Routing rows matched with tokens, batch by batch.
struct Join {
    /// Row of each (sequence, position).
    index: PlHashMap<(u32, u32), u32>,
    /// Place and E of each MoE layer.
    slots: PlHashMap<u16, (usize, u16)>,
    /// Token and layer of the rows so far.
    present: Bits,
    /// Rows so far, by token.
    rows_of_token: Vec<u16>,
}

impl Join {
    fn new(run: &Run, tokens: &TokenTable) -> Result<Self, TraceError> {
        let MoeShape { layers } = &run.manifest().moe;
        let slots: PlHashMap<u16, (usize, u16)> = layers
            .iter()
            .enumerate()
            .map(|(slot, layer)| (layer.layer, (slot, layer.experts)))
            .collect();
        let index = token_index(tokens).and_then(|index| match slots.len() == layers.len() {
            true => Ok(index),
            false => Err("manifest.json lists an MoE layer twice, expected once".to_string()),
        });
        Ok(Self {
            index: index.map_err(|problem| inconsistent(run, problem))?,
            present: Bits::new(tokens.rows() * slots.len()),
            slots,
            rows_of_token: vec![0; tokens.rows()],
        })
    }

    /// Appends the token of each row of a batch.
    fn add(
        &mut self,
        run: &Run,
        tokens: &TokenTable,
        routing: &RoutingTable,
        token_of_row: &mut Vec<u32>,
    ) -> Result<(), TraceError> {
        self.match_rows(tokens, routing, token_of_row).map_err(|problem| inconsistent(run, problem))
    }

    /// Finds the token of every routing row and counts the rows of every token, and refuses what no reader
    /// could interpret: a layer the manifest does not know, an expert beyond E, a token and layer twice.
    fn match_rows(
        &mut self,
        tokens: &TokenTable,
        routing: &RoutingTable,
        token_of_row: &mut Vec<u32>,
    ) -> Result<(), String> {
        let moe_layers = self.slots.len();
        let mut last_layer: Option<(u16, (usize, u16))> = None;
        let mut last_token = NO_TOKEN;
        for row in 0..routing.rows() {
            let layer = routing.layer[row];
            // Neighbouring rows share the layer or the token, whichever way the writer goes.
            let (slot, experts) = match last_layer {
                Some((last, found)) if last == layer => found,
                _ => *self.slots.get(&layer).ok_or_else(|| {
                    format!("routing/ has layer {layer}, which is no MoE layer in manifest.json")
                })?,
            };
            last_layer = Some((layer, (slot, experts)));
            if let Some(expert) = routing.experts_of(row).iter().find(|expert| **expert >= experts)
            {
                return Err(format!(
                    "routing/ has expert {expert} in layer {layer}, which has {experts} experts in \
                     manifest.json"
                ));
            }
            let key = (routing.sequence[row], routing.position[row]);
            let is = |token: &u32| {
                let token = *token as usize;
                tokens.sequence.get(token) == Some(&key.0) && tokens.position[token] == key.1
            };
            // The same token, the next one, or any other.
            let near = [last_token, last_token.wrapping_add(1)].into_iter().find(is);
            let token = near.or_else(|| self.index.get(&key).copied()).unwrap_or(NO_TOKEN);
            last_token = token;
            token_of_row.push(token);
            if token == NO_TOKEN {
                continue;
            }
            if self.present.set(token as usize * moe_layers + slot) {
                return Err(format!(
                    "routing/ has sequence {}, position {}, layer {layer} twice, expected once",
                    key.0, key.1
                ));
            }
            self.rows_of_token[token as usize] += 1;
        }
        Ok(())
    }

    /// Whether each token has a row for every MoE layer.
    fn complete(&self) -> Vec<bool> {
        self.rows_of_token.iter().map(|rows| usize::from(*rows) == self.slots.len()).collect()
    }
}

fn inconsistent(run: &Run, problem: String) -> TraceError {
    TraceError::Inconsistent { path: run.path().to_path_buf(), problem }
}

/// Row of each (sequence, position).
fn token_index(tokens: &TokenTable) -> Result<PlHashMap<(u32, u32), u32>, String> {
    let mut index = PlHashMap::with_capacity(tokens.rows());
    for (row, key) in
        tokens.sequence.iter().copied().zip(tokens.position.iter().copied()).enumerate()
    {
        let row = u32::try_from(row)
            .ok()
            .filter(|row| *row != NO_TOKEN)
            .ok_or("more than 4,294,967,295 tokens; split the run")?;
        if index.insert(key, row).is_some() {
            return Err(format!(
                "tokens/ has sequence {}, position {} twice, expected once",
                key.0, key.1
            ));
        }
    }
    Ok(index)
}

/// A set of small numbers.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    /// Sets a bit; whether it was set before.
    fn set(&mut self, bit: usize) -> bool {
        let (word, mask) = (&mut self.0[bit / 64], 1 << (bit % 64));
        let before = *word & mask != 0;
        *word |= mask;
        before
    }
}

/// Keeps the values whose flag is set, in place.
fn retain<T>(values: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    values.retain(|_| keep.next().copied().unwrap_or(false));
}

/// Keeps the lists whose flag is set, in place, and leaves `lists` alone.
fn retain_lists<T: Copy>(values: &mut Vec<T>, lists: &Lists, keep: &[bool]) {
    let mut end = 0;
    for (row, keep) in keep.iter().enumerate() {
        if *keep {
            let range = lists.range(row);
            let len = range.len();
            values.copy_within(range, end);
            end += len;
        }
    }
    values.truncate(end);
}

impl Lists {
    /// The lists of the rows whose flag is set.
    fn retained(&self, keep: &[bool]) -> Lists {
        match self {
            Lists::Fixed(width) => Lists::Fixed(*width),
            Lists::Offsets(_) => {
                let mut offsets = vec![0];
                let mut end = 0;
                for (row, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
                    end += self.range(row).len() as u64;
                    offsets.push(end);
                }
                Lists::Offsets(offsets)
            }
        }
    }
}

impl TokenTable {
    /// Keeps the rows whose flag is set; one flag per row.
    pub(crate) fn retain(&mut self, keep: &[bool]) {
        // Without `..`: a new column must not be forgotten here.
        let Self { sequence, position, step, phase, token_id, text, domain, domains: _, logprob } =
            self;
        retain(sequence, keep);
        retain(position, keep);
        retain(step, keep);
        retain(phase, keep);
        retain(token_id, keep);
        retain(text, keep);
        retain(domain, keep);
        retain(logprob, keep);
    }
}

impl RoutingTable {
    /// Keeps the rows whose flag is set; one flag per row.
    pub(crate) fn retain(&mut self, keep: &[bool]) {
        let Self {
            sequence,
            position,
            layer,
            lists,
            experts,
            weights,
            entropy,
            margin,
            output_norms,
            prob_lists,
            probs,
        } = self;
        retain(sequence, keep);
        retain(position, keep);
        retain(layer, keep);
        retain_lists(experts, lists, keep);
        for values in [weights, output_norms].into_iter().flatten() {
            retain_lists(values, lists, keep);
        }
        for values in [entropy, margin].into_iter().flatten() {
            retain(values, keep);
        }
        if let Some(values) = probs {
            retain_lists(values, prob_lists, keep);
        }
        *lists = lists.retained(keep);
        *prob_lists = prob_lists.retained(keep);
    }
}
