//! From a run directory to [`RunData`]: the one place that knows the tables of moescope-trace.

use moescope_trace::manifest::Manifest;
use moescope_trace::{RoutingFields, RoutingTable, Run, RunTables, StepTable, TokenTable};

use crate::data::{LayerData, NO_EXPERT, RunData, Sequence, TokenData};
use crate::error::AnalysisError;
use crate::texts::TokenTexts;

impl RunData {
    /// Reads a run into dense arrays. The routing is read some row groups at a time, and goes into place at
    /// once: no whole table of it is held beside the arrays. Tokens whose routing is not complete are left
    /// out, as [`Run::read`] does.
    ///
    /// # Errors
    ///
    /// [`AnalysisError::Trace`] where the directory cannot be read, and the others where its tables
    /// contradict each other or the manifest.
    pub fn load(run: &Run) -> Result<Self, AnalysisError> {
        let (tokens, steps) = (run.read_tokens()?, run.read_steps()?);
        let mut order = Order::new(&tokens);
        let mut layers = Layers::new(run.manifest(), order.rank_of.len());
        let fields = RoutingFields { output_norms: true, ..RoutingFields::default() };
        let complete = run.each_routing(&tokens, fields, |routing, token_of_row| {
            layers.fill(routing, token_of_row, &order.rank_of)
        })?;
        if complete.contains(&false) {
            let keep: Vec<bool> = order.rows.iter().map(|&row| complete[row as usize]).collect();
            layers.retain(&keep);
            order.rows.retain(|&row| complete[row as usize]);
        }
        Self::new(run.manifest().clone(), run.is_partial(), tokens, &order, layers, steps)
    }

    /// Dense arrays from tables that are already in memory, as [`Run::read`] gives them: tokens in
    /// any order, and for each routing row its token.
    ///
    /// # Errors
    ///
    /// [`AnalysisError::Value`] where a row contradicts another or the manifest.
    pub fn from_tables(
        manifest: Manifest,
        partial: bool,
        tables: RunTables,
    ) -> Result<Self, AnalysisError> {
        let RunTables { tokens, routing, token_of_row, steps, .. } = tables;
        let order = Order::new(&tokens);
        let mut layers = Layers::new(&manifest, order.rank_of.len());
        layers.fill(&routing, &token_of_row, &order.rank_of)?;
        Self::new(manifest, partial, tokens, &order, layers, steps)
    }

    fn new(
        manifest: Manifest,
        partial: bool,
        tokens: TokenTable,
        order: &Order,
        layers: Layers,
        steps: StepTable,
    ) -> Result<Self, AnalysisError> {
        let data = Self {
            name: manifest.model.name.clone(),
            partial,
            sequences: sequences(&tokens, &order.rows)?,
            tokens: token_data(&tokens, &order.rows),
            domains: tokens.domains,
            layers: layers.layers,
            steps,
            manifest,
        };
        data.check()?;
        Ok(data)
    }
}

/// Tokens by sequence and position.
struct Order {
    /// Rows of the table of tokens.
    rows: Vec<u32>,
    /// Place of each row in that order.
    rank_of: Vec<u32>,
}

impl Order {
    fn new(tokens: &TokenTable) -> Self {
        // A run is written sequence by sequence or batch by batch. This sort takes linear time on
        // what is in order, and the tokens are few beside the routing rows.
        let mut rows: Vec<u32> = (0..tokens.rows() as u32).collect();
        rows.sort_by_key(|&row| (tokens.sequence[row as usize], tokens.position[row as usize]));
        let mut rank_of = vec![0; rows.len()];
        for (rank, &row) in (0u32..).zip(&rows) {
            rank_of[row as usize] = rank;
        }
        Self { rows, rank_of }
    }
}

fn sequences(tokens: &TokenTable, order: &[u32]) -> Result<Vec<Sequence>, AnalysisError> {
    let mut sequences: Vec<Sequence> = Vec::new();
    for (rank, &row) in order.iter().enumerate() {
        let (id, domain) = (tokens.sequence[row as usize], tokens.domain[row as usize]);
        match sequences.last_mut() {
            Some(last) if last.id == id => {
                if last.domain != domain {
                    let name = |domain: u16| {
                        tokens.domains.get(usize::from(domain)).map_or("?", String::as_str)
                    };
                    return Err(AnalysisError::Value {
                        column: "tokens.domain",
                        sequence: id,
                        position: tokens.position[row as usize],
                        problem: format!(
                            "a sequence has one domain; found {:?} after {:?}",
                            name(domain),
                            name(last.domain)
                        ),
                    });
                }
                last.end = rank + 1;
            }
            _ => sequences.push(Sequence { id, domain, start: rank, end: rank + 1 }),
        }
    }
    Ok(sequences)
}

fn token_data(tokens: &TokenTable, order: &[u32]) -> TokenData {
    fn ordered<T: Copy>(column: &[T], order: &[u32]) -> Vec<T> {
        order.iter().map(|&row| column[row as usize]).collect()
    }
    let logprob = tokens.logprob.iter().any(Option::is_some).then(|| {
        order.iter().map(|&row| tokens.logprob[row as usize].unwrap_or(f32::NAN)).collect()
    });
    TokenData {
        position: ordered(&tokens.position, order),
        token_id: ordered(&tokens.token_id, order),
        step: ordered(&tokens.step, order),
        phase: ordered(&tokens.phase, order),
        logprob,
        texts: TokenTexts::collect(order.iter().map(|&row| tokens.text[row as usize].as_str())),
    }
}

/// The dense arrays of all MoE layers, filled as the routing goes by.
struct Layers {
    layers: Vec<LayerData>,
    /// Place of each model layer among them.
    place_of: Vec<Option<usize>>,
    /// Tokens, T.
    tokens: usize,
}

impl Layers {
    fn new(manifest: &Manifest, tokens: usize) -> Self {
        let layers: Vec<LayerData> = manifest
            .moe
            .layers
            .iter()
            .map(|shape| {
                let top_k = usize::from(shape.top_k);
                let ids = vec![NO_EXPERT; tokens * top_k];
                LayerData::from_ids(shape.layer, usize::from(shape.experts), top_k, ids)
            })
            .collect();
        let highest = layers.iter().map(|layer| usize::from(layer.layer)).max();
        let mut place_of = vec![None; highest.map_or(0, |highest| highest + 1)];
        for (place, layer) in layers.iter().enumerate() {
            place_of[usize::from(layer.layer)] = Some(place);
        }
        Self { layers, place_of, tokens }
    }

    /// Puts rows in place: `token_of_row` is the row of each in the table of tokens, `rank_of` the place of
    /// those.
    fn fill(
        &mut self,
        routing: &RoutingTable,
        token_of_row: &[u32],
        rank_of: &[u32],
    ) -> Result<(), AnalysisError> {
        let tokens = self.tokens;
        let rank = |row: usize| rank_of[token_of_row[row] as usize] as usize;
        let mut row = 0;
        while row < token_of_row.len() {
            let (number, first) = (routing.layer[row], rank(row));
            let wrong = |column: &'static str, problem: String| AnalysisError::Value {
                column,
                sequence: routing.sequence[row],
                position: routing.position[row],
                problem,
            };
            let Some(place) = self.place_of.get(usize::from(number)).copied().flatten() else {
                let problem = format!("manifest.json has no MoE layer {number}");
                return Err(wrong("routing.layer", problem));
            };
            let layer = &mut self.layers[place];
            let width = routing.lists.range(row).len();
            // Fewer is a router with a threshold; the rest of the row stays empty.
            if width > layer.top_k {
                let problem = format!(
                    "manifest.json says {} experts per token at layer {number}, found {width}",
                    layer.top_k
                );
                return Err(wrong("routing.experts", problem));
            }
            // Most rows come with others of the layer, token after token: they are copied at once.
            let mut end = row + 1;
            if routing.top_k() == Some(layer.top_k) {
                while end < token_of_row.len()
                    && routing.layer[end] == number
                    && rank(end) == first + (end - row)
                {
                    end += 1;
                }
            }
            let from = routing.lists.range(row).start..routing.lists.range(end - 1).end;
            let to = first * layer.top_k..first * layer.top_k + from.len();
            layer.ids[to.clone()].copy_from_slice(&routing.experts[from.clone()]);
            let (per_expert, per_token) = (tokens * layer.top_k, first..first + (end - row));
            for (column, values, len, to, from) in [
                (&mut layer.weights, &routing.weights, per_expert, &to, &from),
                (&mut layer.output_norms, &routing.output_norms, per_expert, &to, &from),
                (&mut layer.entropy, &routing.entropy, tokens, &per_token, &(row..end)),
                (&mut layer.margin, &routing.margin, tokens, &per_token, &(row..end)),
            ] {
                if let Some(values) = values {
                    let column = column.get_or_insert_with(|| vec![f32::NAN; len]);
                    column[to.clone()].copy_from_slice(&values[from.clone()]);
                }
            }
            row = end;
        }
        Ok(())
    }

    /// Keeps the tokens whose flag is set, in place.
    fn retain(&mut self, keep: &[bool]) {
        fn kept<T: Copy>(values: &mut Vec<T>, width: usize, keep: &[bool]) {
            let mut end = 0;
            for (token, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
                values.copy_within(token * width..(token + 1) * width, end);
                end += width;
            }
            values.truncate(end);
        }
        for layer in &mut self.layers {
            kept(&mut layer.ids, layer.top_k, keep);
            for column in [&mut layer.weights, &mut layer.output_norms].into_iter().flatten() {
                kept(column, layer.top_k, keep);
            }
            for column in [&mut layer.entropy, &mut layer.margin].into_iter().flatten() {
                kept(column, 1, keep);
            }
        }
    }
}
